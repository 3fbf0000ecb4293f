import type { Logger } from 'pino'
import { markSilent } from '../../db/clients.ts'
import type { Db } from '../../db/connect.ts'
import type { ClientStatus } from '../../schemas/clients.ts'
import type { CancelMessage, CommandMessage, Report } from '../../schemas/messages.ts'
import type { ClientCredential } from '../access/authenticate.ts'
import type { Tell } from '../cluster/hints.ts'
import type { Statuses } from '../cluster/statuses.ts'
import type { Dispatch } from '../executions/dispatch.ts'
import type { Applied, Ledger } from '../executions/ledger.ts'
import type { Outlet } from '../transport.ts'
import type { Uplink } from '../uplink/uplink.ts'
import type { Session, Sessions } from './sessions.ts'

/** The stream that an HTTP client reads its commands from. */
interface Stream {
  /** Answers false if nobody reads it any more. */
  write(message: CommandMessage | CancelMessage): boolean
  close(): void
}

/** Sessions of clients that cannot speak MQTT: commands on a stream, reports by PUT and POST, the same ledger. */
export interface HttpSessions {
  /** A session until `ended` is called. `journalId`: names the client's durable memory, if it keeps one. */
  open(client: ClientCredential, stream: Stream, journalId: string | undefined): Promise<{ ended(): Promise<void> }>
  /** Keeps the status; an open stream is shown online for 30 s from here. */
  ping(clientId: string, status: ClientStatus): Promise<void>
  /** It has pinged another node, which has kept the status. */
  pingedElsewhere(clientId: string, status: ClientStatus): Promise<void>
  /** An HTTP client has a command when it first speaks of it. */
  report(clientId: string, commandId: string, report: Report): Promise<Applied>
  /** Closes the client's stream if it was opened with this key. */
  disconnect(clientId: string, why: string, keyHash: Buffer): void
  start(): void
  /** Closes every stream and waits until the sessions have ended. */
  stop(): Promise<void>
}

export interface HttpSessionsDeps {
  db: Db
  log: Logger
  ledger: Ledger
  sessions: Sessions
  dispatch: Dispatch
  statuses: Statuses
  /** Tells the other nodes, if there are any. */
  tell: Tell
  uplink: Uplink
  pingTimeoutSeconds: number
}

interface Open {
  session: Session
  keyHash: Buffer
  stream: Stream
  /** performance.now() of the last ping, or of the opening. */
  heardAt: number
  silent: boolean
  ended: PromiseWithResolvers<void>
}

export function createHttpSessions(deps: HttpSessionsDeps): HttpSessions {
  const open = new Map<string, Open>()
  let scan: NodeJS.Timeout | undefined

  const of = (clientId: string, epoch: number): Open | undefined => {
    const found = open.get(clientId)
    return found?.session.epoch === epoch ? found : undefined
  }

  const outlet: Outlet = {
    async forward(session, message) {
      return of(session.clientId, session.epoch)?.stream.write(message) ?? false
    },
    async close(session, why) {
      const current = of(session.clientId, session.epoch)
      if (!current) return
      deps.log.info({ clientId: session.clientId, reason: why }, 'stream closed')
      current.stream.close()
      await current.ended.promise
    },
  }

  async function show(current: Open, silent: boolean): Promise<void> {
    if (current.silent === silent) return
    current.silent = silent
    const { session } = current
    const since = await markSilent(deps.db, session, silent, deps.pingTimeoutSeconds)
    if (since !== undefined)
      return deps.statuses.show(session, silent ? { state: 'offline', since } : { state: 'online' })
    if (!silent) return
    // Another node has heard it, and could not say so here.
    current.silent = false
    current.heardAt = performance.now()
  }

  /** One pass over the streams instead of a timer for each. */
  function findSilent(): void {
    const limit = performance.now() - deps.pingTimeoutSeconds * 1000
    for (const current of open.values()) {
      if (current.silent || current.heardAt > limit) continue
      show(current, true).catch((error) =>
        deps.log.warn({ reason: (error as Error).message }, 'presence is not committed'),
      )
    }
  }

  return {
    async open(client, stream, journalId) {
      const session = await deps.sessions.open(client.id, client.config, outlet)
      session.journalId = journalId ?? null
      session.statusSeen = true
      session.subscription = 'granted'
      const current: Open = {
        session,
        keyHash: client.keyHash,
        stream,
        heardAt: performance.now(),
        silent: false,
        ended: Promise.withResolvers(),
      }
      open.set(client.id, current)
      const ended = async (): Promise<void> => {
        session.ending = true
        try {
          await deps.sessions.end(session)
        } catch (error) {
          deps.log.warn({ clientId: client.id, reason: (error as Error).message }, 'session end is not committed')
        } finally {
          if (open.get(client.id) === current) open.delete(client.id)
          current.ended.resolve()
        }
      }
      try {
        await deps.dispatch.ready(session)
      } catch (error) {
        // Nobody will read the stream: a session without an end would lock the client out.
        await ended()
        throw error
      }
      return { ended }
    },

    async ping(clientId, status) {
      const current = open.get(clientId)
      if (!current) {
        await deps.sessions.reported(clientId, status)
        return deps.tell('ping', { clientId, status })
      }
      const { session } = current
      const journalId = status.journalId ?? session.journalId ?? undefined
      await deps.sessions.status(session, { ...status, journalId }, 'reject')
      current.heardAt = performance.now()
      await show(current, false)
    },

    async pingedElsewhere(clientId, status) {
      const current = open.get(clientId)
      if (!current) return
      current.session.journalId = status.journalId ?? current.session.journalId
      current.heardAt = performance.now()
      await show(current, false)
    },

    async report(clientId, commandId, report) {
      const session = deps.sessions.get(clientId)
      const key = { commandId, clientId }
      if (session && of(clientId, session.epoch)) {
        const input = { type: 'puback', epoch: session.epoch, attempt: report.attempt ?? null } as const
        const has = await deps.ledger.apply(key, input, 'reject')
        if (has) session.forwarded.delete(`${commandId} ${has.after.attempt}`)
      }
      return deps.uplink.report(clientId, commandId, report, session?.journalId ?? null, 'reject')
    },

    disconnect(clientId, why, keyHash) {
      const current = open.get(clientId)
      if (current?.keyHash.equals(keyHash)) void outlet.close(current.session, why)
    },

    start() {
      scan = setInterval(findSilent, 1000)
      scan.unref()
    },
    async stop() {
      clearInterval(scan)
      for (const { stream } of open.values()) stream.close()
      await Promise.all([...open.values()].map(({ ended }) => ended.promise))
    },
  }
}
