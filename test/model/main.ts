import { CONFIGURATIONS } from './configurations.ts'
import { describeViolation, explore, figuresOf } from './explore.ts'

// The long form: every configuration to its end. It takes some minutes and up to 4 GB.

let states = 0
let transitions = 0
let isBroken = false
for (const [name, bounds] of Object.entries(CONFIGURATIONS)) {
  const since = performance.now()
  const explored = explore(bounds)
  const seconds = ((performance.now() - since) / 1000).toFixed(1)
  console.log(`${name}: ${figuresOf(explored)}, ${seconds} s`)
  for (const violation of explored.violations) console.log(describeViolation(violation))
  states += explored.states
  transitions += explored.transitions
  isBroken ||= explored.violations.length > 0
}
console.log(`${Object.keys(CONFIGURATIONS).length} configurations, ${states} states, ${transitions} transitions`)
process.exitCode = isBroken ? 1 : 0
