import * as agentRules from '../../agent/attempts.ts'
import { transition } from '../../control/executions/lifecycle.ts'
import { isSettled } from '../../schemas/executions.ts'
import { CONNECTION, WORK } from './client.ts'
import { createGraph, type Graph } from './graph.ts'
import { AT_REST, isAtRest, MOVES, STATES } from './invariants.ts'
import { type AgentRules, createMemories } from './memories.ts'
import { BREAKS, INCOMING, NODE, PRINCIPALS, SESSIONS, WRITING } from './node.ts'
import { createRows, type Transit } from './rows.ts'
import type { Actor } from './steps.ts'
import { ATTEMPTS, type Bounds, firstWorld, keyOf, type Model, type World } from './world.ts'

interface Violation {
  invariant: string
  /** The shortest way there. */
  trace: string[]
}

export interface Explored {
  states: number
  transitions: number
  /** Distinct states of the execution that `transition` was given. */
  rows: number
  /** There is more than was looked at: whether everything settles in the end is not judged. */
  capped: boolean
  violations: Violation[]
}

export interface Options {
  /** About so many states at most. */
  limit?: number
  stopAtFirst?: boolean
  /** Instead of the project's rules: those with one taken out. */
  transit?: Transit
  agent?: Partial<AgentRules>
}

/** Every world that can be reached within the bounds, nearest first. */
export function explore(bounds: Bounds, options: Options = {}): Explored {
  const { limit = Number.POSITIVE_INFINITY, stopAtFirst = false, transit = transition, agent = {} } = options
  const rows = createRows(transit, bounds.backoff ? 1 : 0)
  const model: Model = { bounds, rows, memories: createMemories(), agent: { ...agentRules, ...agent } }
  const first = firstWorld(model)
  const graph = createGraph(keyOf(first))
  const findings = createFindings()
  const isOver = (): boolean => stopAtFirst && findings.size() > 0
  let transitions = 0
  let frontier: [number, World][] = [[0, first]]

  /** Takes every step from a world, and judges where it leads. */
  function expand(from: number, world: World, next: [number, World][]): void {
    let goesOn = false
    forEachStep(world, model, (after, by, name) => {
      transitions++
      goesOn ||= by === 'client' || by === 'server'
      const { id, isNew } = graph.reach(keyOf(after), from, isSettled(after.row.state.status))
      if (by === 'server' || by === 'timer' || name.startsWith(BREAKS)) graph.alone(from, id)
      if (after.broken !== undefined) findings.add(after.broken, from, name)
      if (after.row !== world.row) findings.addAll(MOVES, (isBroken) => isBroken(world, after, by), from, name)
      if (!isNew) return
      // What follows from a world that must not be says nothing.
      if (findings.addAll(STATES, (isBroken) => isBroken(after, bounds), id)) graph.end(id)
      else next.push([id, after])
    })
    if (isAtRest(world, goesOn, bounds)) findings.addAll(AT_REST, (isBroken) => isBroken(world), from)
  }

  while (frontier.length > 0 && graph.size <= limit && !isOver()) {
    const next: [number, World][] = []
    for (let each = frontier.pop(); each; each = frontier.pop()) expand(...each, next)
    frontier = next
  }
  const capped = frontier.length > 0
  const stuck = capped ? undefined : graph.findStuck()
  if (stuck !== undefined) findings.add('I3 it never settles if the client stays away', stuck)
  return {
    states: graph.size,
    transitions,
    rows: rows.size(),
    capped,
    violations: findings.all().map(({ invariant, id, last }) => ({
      invariant,
      trace: [...traceTo(id, graph, model, first), ...(last === undefined ? [] : [last])],
    })),
  }
}

type Take = (after: World, by: Actor, name: string) => void

const WORLD_STEPS = [...CONNECTION, ...NODE, ...PRINCIPALS]
const SESSION_STEPS = [...INCOMING, ...SESSIONS]

/** Everything that may happen next. */
function forEachStep(world: World, model: Model, take: Take): void {
  for (const step of WORLD_STEPS) {
    const after = step.take(world, model)
    if (after) take(after, step.by, step.name)
  }
  for (const attempt of ATTEMPTS) {
    for (const step of WORK) {
      const after = step.take(world, attempt, model)
      if (after) take(after, step.by, `${step.name} (attempt ${attempt})`)
    }
  }
  for (let epoch = 1; epoch <= world.sessions.length; epoch++) {
    for (const step of SESSION_STEPS) {
      const after = step.take(world, epoch, model)
      if (after) take(after, step.by, `${step.name} (session ${epoch})`)
    }
    for (const attempt of ATTEMPTS) {
      for (const step of WRITING) {
        const after = step.take(world, epoch, attempt, model)
        if (after) take(after, step.by, `${step.name} (attempt ${attempt}, session ${epoch})`)
      }
    }
  }
}

/** The steps of the way, found again by taking it. */
function traceTo(id: number, graph: Graph, model: Model, first: World): string[] {
  const trace: string[] = []
  let world = first
  for (const to of graph.way(id)) {
    let found: { after: World; name: string } | undefined
    forEachStep(world, model, (after, _by, name) => {
      if (!found && graph.find(keyOf(after)) === to) found = { after, name }
    })
    if (!found) throw new Error(`the way to world ${id} is lost`)
    trace.push(found.name)
    world = found.after
  }
  return trace
}

export const figuresOf = ({ states, transitions, rows, capped }: Explored): string =>
  `${states} states, ${transitions} transitions, ${rows} states of the execution${capped ? '; CAPPED, there are more' : ''}`

export const describeViolation = ({ invariant, trace }: Violation): string =>
  [invariant, ...trace.map((step, index) => `  ${index + 1}. ${step}`)].join('\n')

/** The first time that each invariant was found broken: in a world, or in the last step from it. */
function createFindings() {
  const found = new Map<string, { invariant: string; id: number; last: string | undefined }>()
  const add = (invariant: string, id: number, last?: string): void => {
    if (!found.has(invariant)) found.set(invariant, { invariant, id, last })
  }
  return {
    add,
    addAll<Rule>(rules: [string, Rule][], isBroken: (rule: Rule) => boolean, id: number, last?: string): boolean {
      let any = false
      for (const [name, rule] of rules) {
        if (!isBroken(rule)) continue
        any = true
        add(name, id, last)
      }
      return any
    },
    size: () => found.size,
    all: () => [...found.values()],
  }
}
