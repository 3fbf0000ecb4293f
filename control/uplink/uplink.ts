import { z } from 'zod'
import type { Db } from '../../db/connect.ts'
import { insertClientEvents } from '../../db/events.ts'
import { AppError } from '../../schemas/errors.ts'
import type { ClientEvent, Report } from '../../schemas/messages.ts'
import { createBatcher, type WhenDown } from '../batcher.ts'
import type { Applied, Ledger } from '../executions/ledger.ts'
import type { Metrics } from '../metrics/metrics.ts'

/** What clients say, over whichever transport. Each promise resolves after the commit: only then may the client be answered. */
export interface Uplink {
  /**
   * A report about an execution. `journalId`: what the session that carried it has published.
   * Throws NOT_FOUND if this client has no such execution: the client is to be told, but nothing waits for it.
   */
  report(
    clientId: string,
    commandId: string,
    report: Report,
    journalId: string | null,
    whenDown: WhenDown,
  ): Promise<Applied>
  event(clientId: string, type: string, event: ClientEvent): Promise<void>
  /** Whether events wait for PostgreSQL. */
  failing(): boolean
  stop(): Promise<void>
}

const Uuid = z.uuid()

export function createUplink(deps: {
  db: Db
  ledger: Ledger
  metrics: Metrics
  passed?(point: 'report-received' | 'report-committed'): void
}): Uplink {
  const events = createBatcher<{ clientId: string; type: string; id: string; body: ClientEvent }, void>({
    run: async (batch) => {
      await insertClientEvents(deps.db, batch)
      return batch.map(() => undefined)
    },
    max: 500,
    whenDown: 'hold',
    meter: deps.metrics.batcher('client_event'),
  })
  return {
    async report(clientId, commandId, report, journalId, whenDown) {
      deps.passed?.('report-received')
      const known = Uuid.safeParse(commandId).success
      const applied = known
        ? await deps.ledger.apply({ commandId, clientId }, { type: 'report', report, journalId }, whenDown)
        : undefined
      if (!applied) throw new AppError('NOT_FOUND', `There is no command ${commandId} for client ${clientId}.`)
      deps.passed?.('report-committed')
      return applied
    },
    event: (clientId, type, event) => events.add({ clientId, type, id: event.id, body: event }),
    failing: () => events.failing(),
    stop: () => events.stop(),
  }
}
