import { findCancelRequests } from '../../db/cancel-requests.ts'
import type { Db } from '../../db/connect.ts'
import { type ExecutionKey, loadExecutions } from '../../db/executions.ts'
import type { Watch } from '../commands/await-command.ts'
import type { Dispatch } from '../executions/dispatch.ts'
import type { Session, Sessions } from '../sessions/sessions.ts'
import type { ShownClients } from './shown-clients.ts'

/** Finds in PostgreSQL what hints would have said: late, and with nothing lost. */
export interface CatchUp {
  /** What was told until now may have been lost: the next pass looks at everything. */
  missed(): void
  /** Whether the next pass has to find what nobody could tell. */
  isLate(): boolean
  /** One pass. `rarely`: one of those that look whatever was told. */
  pass(rarely: boolean): Promise<void>
}

export interface CatchUpDeps {
  db: Db
  sessions: Sessions
  dispatch: Dispatch
  watch: Watch
  shown: ShownClients
  /** Living nodes beside this one. */
  others(): number
  /** Whether what they tell arrives. */
  isTold(): boolean
}

/** Clients that are compared in one pass. */
const SLICE = 5000
const BATCH = 500

export function createCatchUp(deps: CatchUpDeps): CatchUp {
  const { db, sessions, dispatch } = deps
  let missed = false
  /** What each session has been told in the last pass: once is enough, and twice does no harm. */
  let told = new WeakMap<Session, Set<string>>()

  async function tellCancels(): Promise<void> {
    const before = told
    told = new WeakMap()
    const clientIds = [...sessions.all()].filter(({ ending }) => !ending).map(({ clientId }) => clientId)
    for (let from = 0; from < clientIds.length; from += BATCH) {
      const found = await findCancelRequests(db, clientIds.slice(from, from + BATCH))
      const news = found.filter(({ commandId, clientId }) => {
        const session = sessions.get(clientId)
        if (!session) return false
        const open = told.get(session) ?? new Set()
        told.set(session, open.add(commandId))
        return !before.get(session)?.has(commandId)
      })
      if (news.length > 0) await sendAll(news)
    }
  }

  async function sendAll(keys: ExecutionKey[]): Promise<void> {
    const { items } = await loadExecutions(db, keys)
    for (const item of items) if (sessions.get(item.clientId)) await dispatch.sendCancel(item, item.state)
  }

  const isLate = (): boolean => missed || (deps.others() > 0 && !deps.isTold())

  return {
    missed() {
      missed = true
    },
    isLate,
    async pass(rarely) {
      const everything = missed
      if (!isLate() && !(rarely && deps.others() > 0)) return
      deps.watch.look()
      await tellCancels()
      // Anew if something is lost while it is under way.
      missed = false
      try {
        do {} while (!(await deps.shown.compareSome(SLICE)) && everything)
      } catch (error) {
        missed ||= everything
        throw error
      }
    },
  }
}
