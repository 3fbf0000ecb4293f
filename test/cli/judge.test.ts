import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { Journal } from '../../agent/journal.ts'
import type { Api } from '../../cli/api-client.ts'
import { DEVICES } from '../../cli/demo/devices.ts'
import { judge } from '../../cli/demo/judge.ts'
import type { Played } from '../../cli/demo/scenes.ts'
import type { Command } from '../../schemas/commands.ts'
import type { CommandMessage } from '../../schemas/messages.ts'

const ID = '01980000-0000-7000-8000-000000000001'
const OTHER = '01980000-0000-7000-8000-000000000002'
const AT = '2026-01-01T00:00:00.000Z'

function run(journal: Journal, id: string): void {
  const message = {
    type: 'command',
    id,
    attempt: 1,
    action: 'print',
    priority: 5,
    expiresInSeconds: 60,
  } as CommandMessage
  const key = { id, attempt: 1 }
  journal.received({
    ...message,
    target: { kind: 'client', clientId: 'a1' },
    createdAt: AT,
    sentAt: AT,
    timeoutSeconds: 9,
  })
  journal.started(key)
  journal.finished(key, { status: 'completed', result: { pages: 2 } })
  journal.acknowledged(key)
}

/** What a demo leaves behind when `a1` printed two pages, and a ledger that says so. */
function scene() {
  const directory = mkdtempSync(join(tmpdir(), 'signalbox-judge-'))
  const journals = new Map(
    DEVICES.map(({ clientId }) => [clientId, new Journal({ file: join(directory, `${clientId}.sqlite`) })]),
  )
  onTestFinished(() => {
    for (const journal of journals.values()) journal.close()
    rmSync(directory, { recursive: true })
  })
  const execution = { commandId: ID, clientId: 'a1', status: 'completed', attempt: 1, result: { pages: 2 } }
  const api = (async () => ({ items: [execution], nextCursor: null })) as Api
  const effects = join(directory, 'a1.effects')
  run(journals.get('a1') as Journal, ID)
  writeFileSync(effects, `${ID} 1 page 1/2\n${ID} 1 page 2/2\n`)
  const played: Played = {
    label: 'print',
    command: { id: ID } as Command,
    clientIds: ['a1'],
    outcome: 'completed',
    effects: 2,
  }
  const faults = async () => (await judge(api, [played], directory)).faults
  return { execution, effects, journals, played, faults }
}

test('what agrees is proved', async () => {
  expect(await scene().faults()).toEqual([])
})

test('the judge sees each way in which it could not be true', async () => {
  const twice = scene()
  appendFileSync(twice.effects, `${ID} 1 page 2/2\n`)
  expect(await twice.faults()).toEqual([
    'print, a1: an effect happened twice',
    'print, a1: completed with 3 of 2 effects',
  ])
  const missing = scene()
  writeFileSync(missing.effects, `${ID} 1 page 1/2\n`)
  expect(await missing.faults()).toEqual(['print, a1: completed with 1 of 2 effects'])
  const other = scene()
  other.execution.status = 'failed'
  expect(await other.faults()).toContain('print, a1: the journal says completed, the ledger failed')
  const attempt = scene()
  attempt.execution.attempt = 2
  expect(await attempt.faults()).toEqual(['print, a1: the journal says attempt 1, the ledger 2'])
  const result = scene()
  result.execution.result = { pages: 3 }
  expect(await result.faults()).toHaveLength(1)
  const targets = scene()
  targets.played.clientIds = ['a1', 'a2']
  expect(await targets.faults()).toEqual(['print: the ledger lists a1'])
  const unknown = scene()
  run(unknown.journals.get('d2') as Journal, OTHER)
  expect(await unknown.faults()).toEqual(['2 runs in the journals, 1 in the ledger'])
})
