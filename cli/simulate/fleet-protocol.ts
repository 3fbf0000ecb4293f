import type { Behaviour } from './behaviour.ts'

/** What a process of the fleet is told, once. After it comes only `stop`. */
export interface FleetOrders {
  url: string
  topicRoot: string
  devices: { id: string; index: number; clientKey: string }[]
  behaviour: Behaviour
  /** Absent: journals in memory. */
  journalDir: string | undefined
}

/** What it tells, several times a second and at its end. */
export interface FleetReport {
  counts: Counts
}

export interface Counts {
  /** Devices that are connected now. */
  connected: number
  everConnected: number
  /** Lost connections. */
  disconnects: number
  /** CONNECTs that the broker refused. */
  refused: number
  started: number
  completed: number
  failed: number
  /** Cancelled, or ended with the fleet, while they ran. */
  stopped: number
}

export const noCounts = (): Counts => ({
  connected: 0,
  everConnected: 0,
  disconnects: 0,
  refused: 0,
  started: 0,
  completed: 0,
  failed: 0,
  stopped: 0,
})

export function addCounts(parts: Counts[]): Counts {
  const sum = noCounts()
  for (const part of parts) for (const key of Object.keys(sum) as (keyof Counts)[]) sum[key] += part[key]
  return sum
}
