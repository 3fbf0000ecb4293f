import type { Scenario } from './scenario.ts'
import { broadcast } from './scenarios/broadcast.ts'
import { connectStorm } from './scenarios/connect-storm.ts'
import { create } from './scenarios/create.ts'
import { idleFleet } from './scenarios/idle-fleet.ts'
import { idleLatency } from './scenarios/idle-latency.ts'
import { lifecycle } from './scenarios/lifecycle.ts'

/** All of them, in the order in which they run. */
export const SCENARIOS: readonly Scenario[] = [create, lifecycle, idleLatency, broadcast, connectStorm, idleFleet]
