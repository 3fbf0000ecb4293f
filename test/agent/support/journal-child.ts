import { Journal } from '../../../agent/journal.ts'
import { cancelOf, command, idOf } from './fixtures.ts'

// Takes one step of the journal per line that the parent writes and answers when it is on disk; the parent kills it.
const journal = new Journal({ file: process.argv[2] as string })
const key = { id: idOf(1), attempt: 1 }
const steps: Record<string, () => unknown> = {
  received: () => journal.received(command(1)),
  started: () => journal.started(key),
  finished: () => journal.finished(key, { status: 'completed', result: 'done' }),
  acknowledged: () => journal.acknowledged(key),
  cancelled: () => journal.cancelled(cancelOf(2, { journalId: journal.journalId })),
}
process.stdin.setEncoding('utf8').on('data', (text: string) => {
  for (const step of text.trim().split('\n')) {
    steps[step]?.()
    process.stdout.write(`${step}\n`)
  }
})
process.stdout.write('ready\n')
