import type { Db } from '../../db/connect.ts'
import { loadUnsettledFacts, type UnsettledFacts } from '../../db/execution-reads.ts'
import type { Explanation } from '../../schemas/commands.ts'
import type { Nodes } from '../cluster/nodes.ts'
import type { Session, Sessions } from '../sessions/sessions.ts'
import { readCommand } from './read-commands.ts'

const LIMIT = 200

/** Per execution that has not ended, why it has not moved, at most 200 of them. Throws NOT_FOUND. */
export async function explainCommand(
  deps: { db: Db; sessions: Sessions; nodes: Pick<Nodes, 'id'> },
  id: string,
): Promise<Explanation[]> {
  await readCommand(deps.db, id)
  const facts = await loadUnsettledFacts(deps.db, id, LIMIT)
  return facts.map((fact) => {
    const [code, message] = explain(id, fact, deps.sessions.get(fact.clientId), deps.nodes.id)
    return { clientId: fact.clientId, status: fact.status, attempt: fact.attempt, code, message }
  })
}

type Reason = [Explanation['code'], string]

/** The first reason that holds, in the order in which the way of a command meets them. */
function explain(
  id: string,
  fact: UnsettledFacts,
  session: Pick<Session, 'subscription'> | undefined,
  here: string,
): Reason {
  if (fact.status === 'outcome_unknown') {
    return [
      'outcome_unknown',
      `Nobody can tell whether it happened: ${fact.error?.message ?? 'no report came.'} Look there, then resolve it: ` +
        `signalbox commands resolve ${id} ${fact.clientId}. A late report of the client ends it too.`,
    ]
  }
  if (fact.cancelRequestedAt !== null) {
    const asked = fact.online
      ? 'the client was asked and has not answered'
      : `the client is offline since ${fact.presenceSince} and will be asked first`
    return ['cancel_requested', `A cancel was requested at ${fact.cancelRequestedAt}; ${asked}.`]
  }
  return fact.status === 'pending' ? explainPending(fact, session, here) : explainHandedOver(fact)
}

function explainPending(
  fact: UnsettledFacts,
  session: Pick<Session, 'subscription'> | undefined,
  here: string,
): Reason {
  const elsewhere = !session && fact.node && fact.node.id !== here ? fact.node : undefined
  if (fact.disabled) return ['client_disabled', 'The client is disabled.']
  if (fact.notBefore !== null) {
    return fact.attempt > 1
      ? ['retry_scheduled', `Attempt ${fact.attempt} of ${fact.maxRetries + 1} is due at ${fact.notBefore}.`]
      : ['not_due', `Not due until ${fact.notBefore}.`]
  }
  if (!fact.online) return ['client_offline', `The client is offline since ${fact.presenceSince}.`]
  if (session?.subscription === 'refused_at_qos_0') {
    return [
      'refused_at_qos_0',
      'The client asked for its commands topic at QoS 0, which was refused: it must subscribe at QoS 1.',
    ]
  }
  if (!elsewhere && session?.subscription !== 'granted') {
    return [
      'not_subscribed',
      `The client is connected since ${fact.presenceSince}, but has not subscribed to its commands topic.`,
    ]
  }
  if (fact.priority < 10 && fact.inFlight >= fact.maxInFlight) {
    return ['window_full', `The client already has ${fact.inFlight} of at most ${fact.maxInFlight} commands in flight.`]
  }
  if (fact.ahead > 0) return ['queue_ahead', `${fact.ahead} commands of this client are more urgent or older.`]
  if (elsewhere) {
    return [
      'held_by_node',
      `The client is connected to the server ${elsewhere.name}, which has not sent it: only there can be told why.`,
    ]
  }
  return ['about_to_be_sent', 'Nothing is in its way: it is about to be sent.']
}

function explainHandedOver(fact: UnsettledFacts): Reason {
  if (fact.status === 'running')
    return ['waiting_for_outcome', `The client says it started; its outcome is due by ${fact.deadline}.`]
  if (!fact.online) {
    return [
      'waiting_for_reconnect',
      `The client went offline at ${fact.presenceSince} with the command; its word is due by ${fact.deadline}.`,
    ]
  }
  return fact.status === 'queued'
    ? ['waiting_for_puback', `Sent at ${fact.queuedAt}; the client has not acknowledged it (PUBACK).`]
    : [
        'waiting_for_start',
        `The client acknowledged it and has not said that it started; that is due by ${fact.deadline}.`,
      ]
}
