import type { Json } from '../../schemas/json.ts'
import type { SessionRef, Transport } from '../transport.ts'
import type { Tell } from './hints.ts'

/** What the clients' status topics retain, here and on the other nodes, in the order of the clients' sessions. */
export interface Statuses {
  /** Retains it here and tells the others, unless a newer session of the client was shown. */
  show(session: SessionRef, status: Record<string, Json>): Promise<void>
  /** The session has published it itself, so that it is retained here. */
  published(session: SessionRef, status: Record<string, Json>): void
  /** Another node shows it. */
  showElsewhere(session: SessionRef, status: Record<string, Json>): Promise<void>
  /** Whether a newer session of the client was shown. */
  isSuperseded(session: SessionRef): boolean
  /** Something of the client was told: what was read from PostgreSQL before is older. */
  touch(clientId: string): void
  /** Whether nothing of the client was told since then, on the clock of performance.now(). */
  isQuietSince(clientId: string, at: number): boolean
}

/** Without a line to other nodes there is nothing to compare with. */
export function createStatuses(deps: { transport: Transport; tell: Tell; hasLine: boolean }): Statuses {
  const { transport, tell } = deps
  const newest = new Map<string, number>()
  const touched = new Map<string, number>()

  const touch = (clientId: string): void => void touched.set(clientId, performance.now())

  function isNews({ clientId, epoch }: SessionRef): boolean {
    if (!deps.hasLine) return true
    if ((newest.get(clientId) ?? 0) > epoch) return false
    newest.set(clientId, epoch)
    touch(clientId)
    return true
  }

  return {
    async show({ clientId, epoch }, status) {
      if (!isNews({ clientId, epoch })) return
      tell('status', { clientId, epoch, status })
      await transport.retainStatus(clientId, status)
    },
    published({ clientId, epoch }, status) {
      if (isNews({ clientId, epoch })) tell('status', { clientId, epoch, status })
    },
    async showElsewhere(session, status) {
      if (isNews(session)) await transport.retainStatus(session.clientId, status)
    },
    isSuperseded: ({ clientId, epoch }) => (newest.get(clientId) ?? 0) > epoch,
    touch,
    isQuietSince: (clientId, at) => (touched.get(clientId) ?? 0) < at,
  }
}
