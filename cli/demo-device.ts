import { appendFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout as wait } from 'node:timers/promises'
import { z } from 'zod'
import { Agent } from '../agent/agent.ts'

/**
 * A device of the demo, run by it as a process of its own. Each thing it does leaves a line in its effects file: what a
 * printer's paper would show, or a lock's bolt.
 * Arguments: client id, directory of its journal and its effects. The first line of standard input is {url, clientKey}.
 */
const [clientId, directory] = process.argv.slice(2) as [string, string]
const PrintJob = z.object({ document: z.string(), copies: z.int().min(1).max(100) })
const Message = z.object({ text: z.string() })
const COPY_MS = 150

const input = createInterface({ input: process.stdin })
// However the demo ends, its device does not outlive it.
input.once('close', () => process.exit(1))
const line = await new Promise<string>((resolve) => input.once('line', resolve))
const { url, clientKey } = z.object({ url: z.string(), clientKey: z.string() }).parse(JSON.parse(line))

const effect = (id: string, attempt: number, what: string): void =>
  appendFileSync(`${directory}/${clientId}.effects`, `${id} ${attempt} ${what}\n`)

const agent = new Agent({
  url,
  clientId,
  clientKey,
  journal: `${directory}/${clientId}.sqlite`,
  version: 'demo',
  reconnect: { minMs: 100, maxMs: 500 },
  handlers: {
    async print({ id, attempt, payload, progress, signal }) {
      const { document, copies } = PrintJob.parse(payload)
      for (let copy = 1; copy <= copies; copy++) {
        await wait(COPY_MS, undefined, { signal })
        effect(id, attempt, `${document} ${copy}/${copies}`)
        progress({ done: copy, total: copies })
      }
      return { pages: copies }
    },
    lock({ id, attempt }) {
      effect(id, attempt, 'locked')
      return { locked: true }
    },
    message({ id, attempt, payload }) {
      effect(id, attempt, `shown: ${Message.parse(payload).text}`)
      return { shown: true }
    },
  },
})
await agent.start()
process.once('SIGTERM', () => void agent.stop({ graceMs: 5000 }).then(() => process.exit(0)))
