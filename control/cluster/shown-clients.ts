import { isDeepStrictEqual } from 'node:util'
import { findShown, listShown, type ShownClient } from '../../db/clients.ts'
import type { Db } from '../../db/connect.ts'
import type { Authenticator } from '../access/authenticate.ts'
import { createBatcher } from '../batcher.ts'
import { disconnect } from '../clients/manage-clients.ts'
import type { Dispatch } from '../executions/dispatch.ts'
import type { Metrics } from '../metrics/metrics.ts'
import { configure, type Sessions } from '../sessions/sessions.ts'
import type { Transport } from '../transport.ts'
import type { Statuses } from './statuses.ts'

/** Makes what this node shows of the clients, and lets them do, agree with PostgreSQL. */
export interface ShownClients {
  /** All of it, at the start. */
  retainAll(): Promise<void>
  /** A client that another node has changed. */
  follow(clientId: string): Promise<void>
  /** Compares the next clients in the order of their ids; answers whether that was the end of them. */
  compareSome(limit: number): Promise<boolean>
}

export interface ShownClientsDeps {
  db: Db
  metrics: Metrics
  authenticator: Authenticator
  sessions: Sessions
  dispatch: Dispatch
  transport: Transport
  statuses: Statuses
}

const PAGE = 1000

export function createShownClients(deps: ShownClientsDeps): ShownClients {
  const { db, transport, sessions, statuses } = deps
  /** Where the comparison goes on, and whom it has met since it began. */
  let after = ''
  let met = new Set<string>()
  let beganAt = 0

  const reading = createBatcher<string, ShownClient | undefined>({
    run: async (ids) => {
      const found = new Map((await findShown(db, ids)).map((client) => [client.id, client]))
      return ids.map((id) => found.get(id))
    },
    max: 500,
    whenDown: 'reject',
    meter: deps.metrics.batcher('shown_client'),
  })

  /** `readAt`: what was told since then is newer. */
  async function adopt(client: ShownClient, readAt: number): Promise<void> {
    const { id, config, status } = client
    if (!statuses.isQuietSince(id, readAt)) return
    if (client.disabled) disconnect(deps, id, 'it was disabled')
    const session = sessions.get(id)
    const retained = transport.retained(id)
    if (session) configure(session, config)
    if (!isDeepStrictEqual(retained.config, config)) {
      await transport.retainConfig(id, config)
      deps.dispatch.wake(session)
    }
    // Of its own sessions a node knows best.
    if (!session && !isDeepStrictEqual(retained.status, status)) await transport.retainStatus(id, status)
  }

  async function forget(id: string): Promise<void> {
    disconnect(deps, id, 'it was deleted')
    await transport.forget(id)
  }

  async function forgetMissing(): Promise<void> {
    for (const id of transport.retainedClients())
      if (!met.has(id) && statuses.isQuietSince(id, beganAt) && !(await reading.add(id))) await forget(id)
  }

  async function compareSome(limit: number): Promise<boolean> {
    const readAt = performance.now()
    if (after === '') {
      beganAt = readAt
      met = new Set()
    }
    const clients = await listShown(db, after, limit)
    for (const client of clients) {
      met.add(client.id)
      await adopt(client, readAt)
    }
    after = clients.length < limit ? '' : (clients.at(-1) as ShownClient).id
    if (after === '') await forgetMissing()
    return after === ''
  }

  return {
    async retainAll() {
      for (let isEnd = false; !isEnd; ) isEnd = await compareSome(PAGE)
    },

    async follow(clientId) {
      deps.authenticator.forgetClient(clientId)
      const readAt = performance.now()
      const client = await reading.add(clientId)
      if (client) await adopt(client, readAt)
      else await forget(clientId)
    },

    compareSome,
  }
}
