import { expect, test } from 'vitest'
import * as agentRules from '../../agent/attempts.ts'
import { type Input, transition } from '../../control/executions/lifecycle.ts'
import { inFlight } from '../../control/executions/states.ts'
import type { ExecutionState } from '../../db/executions.ts'
import { CONFIGURATIONS } from './configurations.ts'
import { describeViolation, explore, type Options } from './explore.ts'
import type { Transit } from './rows.ts'

// Each rule taken out must be missed: the explorer finds what goes wrong without it, and by which shortest way.

interface Mutation {
  configuration: string
  rules: Options
  finds: string
}

/** The project's rules, but for what this answers. */
const without = (other: Transit): Options => ({ transit: other })

/** `cancelled` and `expired` are said whatever an earlier attempt may have done. */
const noDoubt: Transit = (state, input, context) => {
  const made = transition(state, input, context)
  if (made.state === state || made.state.error?.code !== 'IN_DOUBT') return made
  const reported = input.type === 'report' ? input.report.status : undefined
  const status = reported === 'expired' || input.type === 'expire' ? 'expired' : 'cancelled'
  return { state: { ...made.state, status, error: null }, events: made.events }
}

const withInput =
  (change: (input: Input, state: ExecutionState) => Input): Transit =>
  (state, input, context) =>
    transition(state, change(input, state), context)

const releaseRedelivery: Transit = (state, input, context) =>
  transition(input.type === 'release' ? { ...state, handovers: state.handovers.slice(-1) } : state, input, context)

const releaseAnyAttempt = withInput((input, { attempt }) => (input.type === 'release' ? { ...input, attempt } : input))

/** What a crashed node had claimed counts as not handed over. */
const crashReleases: Transit = (state, input, context) => {
  if (input.type !== 'session-ended' || state.status !== 'queued' || state.epoch !== input.epoch)
    return transition(state, input, context)
  return transition(state, { type: 'release', epoch: input.epoch, attempt: state.attempt }, context)
}

const redeliverToAnybody: Transit = (state, input, context) => {
  if (input.type !== 'session-ready') return transition(state, input, context)
  const made = transition({ ...state, delivery: 'at_least_once' }, input, context)
  return { ...made, state: { ...made.state, delivery: state.delivery } }
}

const olderCompletedIgnored: Transit = (state, input, context) => {
  const isOlder = input.type === 'report' && (input.report.attempt ?? state.attempt) < state.attempt
  const made = transition(state, input, context)
  return isOlder && input.report.status === 'completed' ? { state, events: made.events } : made
}

const nobodyAsks: Transit = (state, input, context) => {
  const made = transition(state, input, context)
  return made.state.status === 'outcome_unknown' ? { state: made.state, events: made.events } : made
}

const startTimeoutFromPuback: Transit = (state, input, context) =>
  input.type === 'timeout' && state.status === 'queued' ? { state, events: [] } : transition(state, input, context)

const queuedCancelledAtOnce: Transit = (state, input, context) => {
  const made = transition(state, input, context)
  if (input.type !== 'cancel' || state.status !== 'queued') return made
  return { state: { ...made.state, status: 'cancelled', deadline: null }, events: made.events }
}

const cancelNotSent: Transit = (state, input, context) => {
  const made = transition(state, input, context)
  return input.type === 'cancel' ? { state: made.state, events: made.events } : made
}

const lateReportMoves: Transit = (state, input, context) =>
  input.type === 'report' && input.report.status === 'running' && !inFlight(state.status)
    ? { state: { ...state, status: 'running', deadline: 0 }, events: transition(state, input, context).events }
    : transition(state, input, context)

const unnamedMeansNewest = withInput((input, { attempt }) =>
  input.type === 'report' && input.report.attempt === undefined
    ? { ...input, report: { ...input.report, attempt } }
    : input,
)

const { receive, cancel, giveUp } = agentRules
const others = (attempts: agentRules.Attempts, attempt: number) => attempts.filter((entry) => entry.attempt !== attempt)

/** A newer attempt is accepted although the journal has that an older one completed. */
const runsAgain: Options = {
  agent: {
    receive: (attempts, attempt) => [
      ...attempts.filter(({ state }) => state === 'completed'),
      ...receive(
        attempts.filter(({ state }) => state !== 'completed'),
        attempt,
      ),
    ],
  },
}

/** What is given up is answered without a look at older attempts. */
const speaksForOneAttempt: Options = {
  agent: {
    giveUp: (attempts, attempt, outcome) => [
      ...others(attempts, attempt),
      ...giveUp(
        attempts.filter((entry) => entry.attempt === attempt),
        attempt,
        outcome,
      ),
    ],
    cancel: (attempts, attempt, own) => ({
      attempts: [
        ...others(attempts, attempt),
        ...cancel(
          attempts.filter((entry) => entry.attempt === attempt),
          attempt,
          own,
        ).attempts,
      ],
    }),
  },
}

const knowsNoRedelivery: Options = {
  agent: { receive: (attempts, attempt) => receive(others(attempts, attempt), attempt) },
}

/** An attempt that it never saw is said to be cancelled, whichever memory it was handed to. */
const deniesWhatItForgot: Options = { agent: { cancel: (attempts, attempt) => cancel(attempts, attempt, true) } }

const MUTATIONS: Record<string, Mutation> = {
  'doubt is not looked at': {
    configuration: 'at_least_once, memory, client crash; expiry',
    rules: without(noDoubt),
    finds: 'I6 withdrawn, though an earlier attempt had its effect',
  },
  'a redelivery is released': {
    configuration: 'at_least_once, memory',
    rules: without(releaseRedelivery),
    finds: 'I4 a position went back, and not by the release of a claim that was never written',
  },
  'a release names no attempt': {
    configuration: 'at_least_once, memory',
    rules: without(releaseAnyAttempt),
    finds: 'I4 a position went back, and not by the release of a claim that was never written',
  },
  'a claim of a crashed node is released': {
    configuration: 'at_most_once, memory',
    rules: without(crashReleases),
    finds: 'I4 a position went back, and not by the release of a claim that was never written',
  },
  'at_most_once is sent again to whoever comes': {
    configuration: 'at_most_once, journal, also lost',
    rules: without(redeliverToAnybody),
    finds: 'I1 an attempt of at_most_once had its effect twice',
  },
  'an older completed is ignored': {
    configuration: 'at_least_once, journal, no crash; expiry',
    rules: without(olderCompletedIgnored),
    finds: 'I7 the client knows, and the outcome stays unknown',
  },
  'nobody asks about an unknown outcome': {
    configuration: 'at_most_once, journal, also lost',
    rules: without(nobodyAsks),
    finds: 'I7 the client knows, and the outcome stays unknown',
  },
  'the start timeout counts from the PUBACK': {
    configuration: 'at_most_once, journal, also lost',
    rules: without(startTimeoutFromPuback),
    finds: 'I3 it never settles if the client stays away',
  },
  'what is queued is cancelled at once': {
    configuration: 'at_most_once, memory; cancel',
    rules: without(queuedCancelledAtOnce),
    finds: 'I6 the server withdrew an attempt that had its effect',
  },
  'a cancel is not sent': {
    configuration: 'at_most_once, memory; cancel',
    rules: without(cancelNotSent),
    finds: 'R8 a cancel was requested, and the session that may have the command was not told',
  },
  'a report moves what is over': {
    configuration: 'at_most_once, memory',
    rules: without(lateReportMoves),
    finds: 'I4 a position went back, and not by the release of a claim that was never written',
  },
  'a report without attempt is about the newest': {
    configuration: 'at_least_once, memory, no crash; reports without attempt',
    rules: without(unnamedMeansNewest),
    finds: 'T a report without attempt moved a newer attempt than it was about',
  },
  'the agent runs what an older attempt has completed': {
    configuration: 'at_least_once, journal, no crash; expiry',
    rules: runsAgain,
    finds: 'R9 the agent runs again what its journal says is completed',
  },
  'the agent speaks for one attempt only': {
    configuration: 'at_least_once, journal, no crash; cancel',
    rules: speaksForOneAttempt,
    finds: 'I6 withdrawn, though an attempt or a hand-over had its effect that nobody said failed',
  },
  'the agent does not know a redelivery': {
    configuration: 'at_least_once, journal, no crash; expiry',
    rules: knowsNoRedelivery,
    finds: 'R4 a client with its journal ran an attempt twice',
  },
  'the agent denies what it has forgotten': {
    configuration: 'at_most_once, memory; cancel',
    rules: deniesWhatItForgot,
    finds: 'I6 the client withdrew an attempt that had its effect',
  },
}

test.each(Object.entries(MUTATIONS))(
  'missed: %s',
  (name, { configuration, rules, finds }) => {
    const bounds = CONFIGURATIONS[configuration]
    if (!bounds) throw new Error(`there is no configuration ${configuration}`)
    const { violations, states } = explore(bounds, { ...rules, stopAtFirst: true, limit: 500_000 })
    console.log(`${name} (${configuration}, ${states} states): ${violations.map(describeViolation).join('\n')}`)
    expect(violations.map(({ invariant }) => invariant)).toContain(finds)
  },
  120_000,
)
