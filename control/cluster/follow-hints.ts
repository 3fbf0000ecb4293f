import type { Db } from '../../db/connect.ts'
import { loadExecutions } from '../../db/executions.ts'
import { isSettled } from '../../schemas/executions.ts'
import type { Authenticator } from '../access/authenticate.ts'
import type { Logins } from '../access/logins.ts'
import type { Actions } from '../actions/actions.ts'
import type { Watch } from '../commands/await-command.ts'
import type { Dispatch } from '../executions/dispatch.ts'
import type { HttpSessions } from '../sessions/http-sessions.ts'
import type { Sessions } from '../sessions/sessions.ts'
import type { Transport } from '../transport.ts'
import type { HintHandlers } from './hints.ts'
import type { ShownClients } from './shown-clients.ts'
import type { Statuses } from './statuses.ts'

export interface FollowHintsDeps {
  db: Db
  sessions: Sessions
  httpSessions: HttpSessions
  dispatch: Dispatch
  watch: Watch
  transport: Transport
  statuses: Statuses
  shown: ShownClients
  authenticator: Authenticator
  logins: Logins
  actions: Actions
}

/** What this node does when another one tells it something. */
export function followHints(deps: FollowHintsDeps): HintHandlers {
  const { sessions, dispatch, transport } = deps
  return {
    work: ({ clientId }) => dispatch.wake(sessions.get(clientId)),
    group: ({ commandId, target }) => dispatch.joinGroup(commandId, target),
    async cancel(key) {
      if (!sessions.get(key.clientId)) return
      const [found] = (await loadExecutions(deps.db, [key])).items
      if (!found || !sessions.get(key.clientId)) return
      const { state } = found
      if (!isSettled(state.status) || state.status === 'outcome_unknown') await dispatch.sendCancel(key, state)
    },
    settled: ({ commandId }) => deps.watch.look(commandId),
    async status({ clientId, epoch, status }) {
      sessions.newerElsewhere({ clientId, epoch })
      await deps.statuses.showElsewhere({ clientId, epoch }, status)
    },
    async client({ clientId }) {
      await deps.shown.follow(clientId)
      deps.logins.recheck()
    },
    access() {
      deps.authenticator.forgetPrincipals()
      deps.logins.recheck()
    },
    action: ({ name }) => deps.actions.forget(name),
    ping: ({ clientId, status }) => deps.httpSessions.pingedElsewhere(clientId, status),
    reply: ({ clientId, reply }) => transport.replyHere(clientId, reply),
    listening: ({ wanted }, from) => transport.listensElsewhere(from, wanted),
    copy: ({ topic, payload }) => transport.publishCopy(topic, payload),
  }
}
