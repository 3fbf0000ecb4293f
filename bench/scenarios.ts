import type { Scenario } from './scenario.ts'
import { backlog } from './scenarios/backlog.ts'
import { broadcast } from './scenarios/broadcast.ts'
import { connectStorm } from './scenarios/connect-storm.ts'
import { create } from './scenarios/create.ts'
import { fleetQueries } from './scenarios/fleet-queries.ts'
import { history } from './scenarios/history.ts'
import { idleFleet } from './scenarios/idle-fleet.ts'
import { idleLatency } from './scenarios/idle-latency.ts'
import { lifecycle } from './scenarios/lifecycle.ts'
import { neighbour } from './scenarios/neighbour.ts'
import { nodes } from './scenarios/nodes.ts'
import { soak } from './scenarios/soak.ts'

/** All of them, in the order in which they run. */
export const SCENARIOS: readonly Scenario[] = [
  create,
  lifecycle,
  idleLatency,
  broadcast,
  connectStorm,
  idleFleet,
  history,
  backlog,
  nodes,
  soak,
  fleetQueries,
  neighbour,
]
