export interface Range {
  min: number
  max: number
}

/** How the devices of a fleet are. */
export interface Behaviour {
  thinkMs: Range
  /** Share of the commands that fail. */
  failures: number
  /** Lost connections per device and second. */
  disconnects: number
  /** Share of the time that a device is away. */
  offline: number
  seed: number
}

/** An outage, and how long after the one before it begins. In ms. */
export interface Outage {
  afterMs: number
  forMs: number
}

const AWAY: Range = { min: 5000, max: 35_000 }
const AWAY_MEAN_MS = (AWAY.min + AWAY.max) / 2
const LOST: Range = { min: 500, max: 3000 }

/** One device's luck: the same for the same seed and index, however the fleet is split. */
export function createLuck(seed: number, index: number): () => number {
  // mulberry32
  let state = (Math.imul(index + 1, 0x9e3779b1) ^ Math.imul(seed + 1, 0x85ebca6b)) >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Most are quick, some take their time. */
export const thinkMs = ({ min, max }: Range, luck: number): number => Math.round(min + (max - min) * luck * luck)

const between = ({ min, max }: Range, luck: number): number => min + (max - min) * luck

// Never log(1): 0 times an infinite mean is no time at all.
const exponential = (mean: number, luck: number): number => -Math.log(1 - Math.max(luck, Number.EPSILON)) * mean

/** A device's outages for ever, if it has any: short ones at the rate of `disconnects`, long ones for a share of `offline`. */
export function* outages({ disconnects, offline }: Behaviour, luck: () => number): Generator<Outage> {
  if (disconnects === 0 && offline === 0) return
  if (luck() < offline) yield { afterMs: 0, forMs: between(AWAY, luck()) }
  const untilLostMs = disconnects === 0 ? Number.POSITIVE_INFINITY : 1000 / disconnects
  const untilAwayMs = offline === 0 ? Number.POSITIVE_INFINITY : (AWAY_MEAN_MS * (1 - offline)) / offline
  for (;;) {
    const lost = exponential(untilLostMs, luck())
    const away = exponential(untilAwayMs, luck())
    const short = thinkMs(LOST, luck())
    const long = between(AWAY, luck())
    yield lost <= away ? { afterMs: lost, forMs: short } : { afterMs: away, forMs: long }
  }
}
