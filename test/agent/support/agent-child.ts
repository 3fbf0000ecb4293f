import { Agent } from '../../../agent/agent.ts'

// An agent in a process of its own, for the parent to kill or to end with a line on standard input.
const [url = '', journal = '', clientId = 'p1', clientKey = 'key'] = process.argv.slice(2)
const agent = new Agent({
  url,
  journal,
  clientId,
  clientKey,
  handlers: {
    hang: () => new Promise<never>(() => process.stdout.write('started\n')),
  },
})
agent.once('connected', () => process.stdout.write('connected\n'))
await agent.start()
process.stdin.once('data', async () => {
  await agent.stop({ graceMs: 10, abortMs: 10 })
  process.stdout.write('stopped\n')
})
process.stdin.unref()
