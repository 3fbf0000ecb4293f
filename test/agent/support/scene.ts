import { Agent, type AgentOptions } from '../../../agent/agent.ts'
import type { Handler } from '../../../agent/handlers.ts'
import type { Json } from '../../../schemas/json.ts'
import { type SeenReport, startBroker, type TestBroker } from './broker.ts'
import { idOf, type TestLog, temporaryDirectory, testLog, until } from './fixtures.ts'

/** A run of the action `work`, waiting for the test to end it. */
interface Run {
  n: number
  attempt: number
  signal: AbortSignal
  progress: Parameters<Handler>[0]['progress']
  complete: (result?: Json) => void
  fail: (error: unknown) => void
}

export interface Scene extends AsyncDisposable {
  broker: TestBroker
  log: TestLog
  runs: Run[]
  file: string
  agent: Agent
  /** Another agent on the same journal (a restart of the process, or of the device with another clock). */
  startAgent(overrides?: Partial<AgentOptions>, wait?: { connected: boolean }): Promise<Agent>
  run(n: number): Promise<Run>
  reports(n: number): SeenReport[]
  /** Waits until the last report about command `n` has this status. */
  reported(n: number, status: string): Promise<SeenReport>
}

/** A broker and a connected agent `p1` whose action `work` ends when the test says so. */
export async function scene(overrides: Partial<AgentOptions> = {}): Promise<Scene> {
  const broker = await startBroker()
  const directory = temporaryDirectory()
  const log = testLog()
  const runs: Run[] = []
  const agents: Agent[] = []
  const work: Handler = ({ payload, attempt, signal, progress }) =>
    new Promise<Json | undefined>((complete, fail) => {
      runs.push({ n: (payload as { n: number }).n, attempt, signal, progress, complete, fail })
    })
  const made: Omit<Scene, 'agent'> = {
    broker,
    log,
    runs,
    file: directory.file('journal.sqlite'),
    async startAgent(more = {}, wait = { connected: true }) {
      const agent = new Agent({
        url: broker.url,
        clientId: 'p1',
        clientKey: 'key',
        journal: made.file,
        handlers: { work },
        log,
        reconnect: { minMs: 1, maxMs: 20 },
        ...overrides,
        ...more,
      })
      agents.push(agent)
      const connected = new Promise<void>((resolve) => agent.once('connected', resolve))
      await agent.start()
      if (wait.connected) await connected
      return agent
    },
    run: (n) =>
      until(() => {
        const run = runs.findLast((candidate) => candidate.n === n)
        if (!run) throw new Error(`command ${n} was not started`)
        return run
      }),
    reports: (n) => broker.reports.filter((report) => report.id === idOf(n)),
    reported: (n, status) =>
      until(() => {
        const last = made.reports(n).at(-1)
        if (last?.status !== status) throw new Error(`command ${n} is reported ${last?.status}, not ${status}`)
        return last
      }),
    async [Symbol.asyncDispose]() {
      broker.holdReports = false
      for (const run of runs) run.complete()
      for (const agent of agents) await agent.stop({ graceMs: 0 })
      await broker.close()
      directory[Symbol.dispose]()
    },
  }
  return Object.assign(made, { agent: await made.startAgent() })
}
