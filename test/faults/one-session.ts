import type { Presence } from './presence-log.ts'

/** What the ledger says of sessions and hand-overs, in its order. */
export interface SessionEvent {
  clientId: string
  type: 'client.online' | 'client.offline' | 'execution.queued' | 'execution.redelivered'
  epoch: number
}

/** A session begins when the one before has ended, and hands over only while it lasts. */
export function* oneSessionInTheLedger(events: SessionEvent[]): Iterable<string> {
  const current = new Map<string, number | undefined>()
  for (const { clientId, type, epoch } of events) {
    const open = current.get(clientId)
    if (type === 'client.online') {
      if (open !== undefined) yield `${clientId}: session ${epoch} began while session ${open} was open`
      current.set(clientId, epoch)
    } else {
      if (open !== epoch) yield `${clientId}: ${type} of session ${epoch} while session ${open ?? 'none'} was open`
      if (type === 'client.offline') current.set(clientId, undefined)
    }
  }
}

/**
 * A process that gets no processor for a while notices the end of its connection only then; one that really goes on lasts, for
 * its door opens no other meanwhile.
 */
const NOTICED_WITHIN_MS = 6000

/** Of the connections that the devices had, no two of one client were open together. */
export function* oneSessionAtTheDevices(presences: Presence[]): Iterable<string> {
  for (const [clientId, all] of Map.groupBy(presences, (presence) => presence.clientId)) {
    const sorted = all.toSorted((a, b) => a.from - b.from)
    for (const [index, later] of sorted.entries()) {
      const together = sorted.slice(0, index).find((earlier) => earlier.to > later.from + NOTICED_WITHIN_MS)
      if (together)
        yield `${clientId}: connected over ${together.door} until ${together.to}, over ${later.door} from ${later.from}`
    }
  }
}
