import { expect, test } from 'vitest'
import {
  type Attempts,
  cancel,
  finish,
  giveUp,
  markReported,
  mayStart,
  receive,
  restart,
  start,
} from '../../agent/attempts.ts'

// The client's part of the checked model (design/model/mc.js, `// ---- client`, options FIX, with a journal), with its
// own numbers: 0 none 1 accepted 2 started 3 completed 4 failed 5 cancelled 6 expired 7 unknown (3-7 unreported),
// 8 reported completed, 9 reported other, 10 reported unknown, 11 superseded, 12 waiting.
type Model = [never: 0, first: number, second: number]
type Which = 1 | 2

function modelGiveUp(e: Model, t: Which, verdict: number): void {
  const o = t === 2 ? e[1] : 0
  if (!o) e[t] = verdict
  else if (o === 3 || o === 8) e[t] = 3
  else if (o === 2) e[t] = 12
  else if (o === 7 || o === 10) e[t] = 7
  else {
    if (o === 1) e[1] = 11
    e[t] = verdict
  }
}

function modelReceive(e: Model, a: Which): void {
  const older = a === 2 ? e[1] : 0
  const newer = a === 1 ? e[2] : 0
  if (e[a] !== 0) return
  if (newer) e[a] = 11
  else if (older === 3 || older === 8) e[a] = 3
  else {
    e[a] = 1
    if (older === 1) e[1] = 11
  }
}

function modelCancel(e: Model, t: Which, own: boolean): void {
  if (e[t] === 1) modelGiveUp(e, t, 5)
  else if (e[t] === 0 && own) modelGiveUp(e, t, 5)
  else if (e[t] === 0) e[t] = 7
  if (t === 2 && e[1] === 1) e[1] = 11
}

function modelFail(e: Model, a: Which): void {
  e[a] = 4
  if (a === 1 && e[2] === 12) e[2] = 5
}

function modelComplete(e: Model, a: Which): void {
  e[a] = 3
  if (a === 1 && (e[2] === 1 || e[2] === 12)) e[2] = 3
}

function modelRestart(e: Model): void {
  for (const a of [1, 2] as const) if (e[a] === 2 || e[a] === 12) e[a] = 7
}

interface Move {
  name: string
  allowed: (e: Model) => boolean
  model: (e: Model) => void
  ours: (attempts: Attempts) => Attempts
}

const runsNone = (e: Model): boolean => e[1] !== 2 && e[2] !== 2
const MOVES: Move[] = ([1, 2] as const).flatMap((a): Move[] => [
  { name: `command ${a}`, allowed: () => true, model: (e) => modelReceive(e, a), ours: (s) => receive(s, a) },
  {
    name: `cancel ${a}`,
    allowed: () => true,
    model: (e) => modelCancel(e, a, true),
    ours: (s) => cancel(s, a, true).attempts,
  },
  {
    name: `foreign cancel ${a}`,
    allowed: () => true,
    model: (e) => modelCancel(e, a, false),
    ours: (s) => cancel(s, a, false).attempts,
  },
  {
    name: `start ${a}`,
    allowed: (e) => e[a] === 1 && runsNone(e),
    model: (e) => {
      e[a] = 2
    },
    ours: (s) => start(s, a),
  },
  {
    name: `expired ${a}`,
    allowed: (e) => e[a] === 1 && runsNone(e),
    model: (e) => modelGiveUp(e, a, 6),
    ours: (s) => giveUp(s, a, { status: 'expired' }),
  },
  {
    name: `fails ${a}`,
    allowed: (e) => e[a] === 2,
    model: (e) => modelFail(e, a),
    ours: (s) => finish(s, a, { status: 'failed' }),
  },
  {
    name: `completes ${a}`,
    allowed: (e) => e[a] === 2,
    model: (e) => modelComplete(e, a),
    ours: (s) => finish(s, a, { status: 'completed' }),
  },
  {
    name: `report ${a} acknowledged`,
    allowed: (e) => e[a] >= 3 && e[a] <= 7,
    model: (e) => {
      e[a] = e[a] === 3 ? 8 : e[a] === 7 ? 10 : 9
    },
    ours: (s) => markReported(s, a),
  },
])
MOVES.push({ name: 'crash and restart', allowed: () => true, model: modelRestart, ours: restart })

const NUMBERS = {
  accepted: 1,
  started: 2,
  completed: 3,
  failed: 4,
  rejected: 4,
  cancelled: 5,
  expired: 6,
  outcome_unknown: 7,
}

/** Ours in the model's numbers. We report an outcome again when asked again; the model does not, so 8 to 10 are 3 to 7. */
function numberOf(attempts: Attempts, n: number): string {
  const state = attempts.find(({ attempt }) => attempt === n)?.state
  if (state === undefined) return 'none'
  if (state === 'superseded' || state === 'waiting') return state
  return String(NUMBERS[state])
}

function modelNumber(value: number): string[] {
  if (value === 0) return ['none']
  if (value === 11) return ['superseded']
  if (value === 12) return ['waiting']
  if (value === 8) return ['3']
  if (value === 9) return ['4', '5', '6']
  if (value === 10) return ['7']
  return [String(value)]
}

test('every reachable state of the model, and every move in it, is ours too', () => {
  const seen = new Set<string>()
  let frontier: { e: Model; attempts: Attempts; trace: string[] }[] = [{ e: [0, 0, 0], attempts: [], trace: [] }]
  let moves = 0
  while (frontier.length > 0) {
    const next: typeof frontier = []
    for (const { e, attempts, trace } of frontier) {
      for (const a of [1, 2] as const) expect(mayStart(attempts, a), trace.join(', ')).toBe(e[a] === 1 && runsNone(e))
      for (const move of MOVES.filter(({ allowed }) => allowed(e))) {
        moves++
        const after: Model = [...e]
        move.model(after)
        const ours = move.ours(attempts)
        const steps = [...trace, move.name]
        for (const a of [1, 2] as const) expect(modelNumber(after[a]), steps.join(', ')).toContain(numberOf(ours, a))
        const key = `${after} ${numberOf(ours, 1)} ${numberOf(ours, 2)} ${ours.map((entry) => entry.reported)}`
        if (!seen.has(key)) next.push({ e: after, attempts: ours, trace: steps })
        seen.add(key)
      }
    }
    frontier = next
  }
  // Of the 13 x 13 pairs; the figures only show that the search went somewhere.
  expect(seen.size).toBeGreaterThan(100)
  expect(moves).toBeGreaterThan(1000)
})
