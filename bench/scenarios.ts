import type { Scenario } from './scenario.ts'
import { create } from './scenarios/create.ts'
import { idleLatency } from './scenarios/idle-latency.ts'
import { lifecycle } from './scenarios/lifecycle.ts'

export const SCENARIOS: readonly Scenario[] = [create, lifecycle, idleLatency]
