import { appendFileSync } from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'
import { z } from 'zod'
import { Agent } from '../agent/agent.ts'

/**
 * A device of the demo, run by it as a process of its own: a printer whose paper is a text file.
 * Arguments: url, client id, directory of its journal and its paper. Its key comes on standard input.
 */
const [url, clientId, directory] = process.argv.slice(2) as [string, string, string]
const PrintJob = z.object({ document: z.string(), copies: z.int().min(1).max(100) })
const COPY_MS = 150

let clientKey = ''
for await (const chunk of process.stdin) clientKey += chunk

const agent = new Agent({
  url,
  clientId,
  clientKey: clientKey.trim(),
  journal: `${directory}/${clientId}.sqlite`,
  version: 'demo',
  handlers: {
    async print({ id, attempt, payload, progress, signal }) {
      const { document, copies } = PrintJob.parse(payload)
      for (let copy = 1; copy <= copies; copy++) {
        await wait(COPY_MS, undefined, { signal })
        appendFileSync(`${directory}/${clientId}.paper`, `${id} ${attempt} ${document} ${copy}/${copies}\n`)
        progress({ done: copy, total: copies })
      }
      return { pages: copies }
    },
  },
})
await agent.start()
// However the demo ends, its device does not outlive it.
process.once('disconnect', () => process.exit(1))
process.once('SIGTERM', () => void agent.stop({ graceMs: 5000 }).then(() => process.exit(0)))
