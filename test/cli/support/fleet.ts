import { Agent } from '../../../agent/agent.ts'
import type { Handler } from '../../../agent/handlers.ts'
import type { TestServer } from '../../support/server.ts'
import { until } from '../../support/until.ts'

export interface Fleet extends AsyncDisposable {
  add(clientId: string, zones?: string[]): Promise<Agent>
}

/** Devices in this process: the agent that ships with the server, registered, connected and subscribed to their zones. */
export function fleetOf(server: TestServer, handlers: Record<string, Handler>): Fleet {
  const agents: Agent[] = []
  return {
    async add(clientId, zones = []) {
      const { body } = await server.api.post('/clients', { id: clientId, zones })
      const agent = new Agent({
        url: server.mqtt,
        clientId,
        clientKey: body.clientKey,
        journal: ':memory:',
        handlers,
      })
      agents.push(agent)
      await agent.start()
      await until(
        async () => (await server.api.get(`/clients/${clientId}`)).body.reported?.journalId,
        `${clientId} is there`,
      )
      return agent
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(agents.map((agent) => agent.stop({ graceMs: 0, abortMs: 100 })))
    },
  }
}
