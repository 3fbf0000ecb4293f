import { figure, table } from '../markdown.ts'
import { COSTS, type CostName, type Costs } from './costs.ts'
import { FLEETS, type Fleet } from './fleet.ts'
import { loadOf, type Prices, pricesOf, total, usesOf } from './model.ts'
import { simulate } from './simulation.ts'

const SEED = 1
const AT_MOST_SECONDS = 600

const count = (value: number): string => Math.round(value).toLocaleString('en')
const percent = (share: number): string => `${figure(share * 100)} %`
const seconds = (value: number): string =>
  Number.isFinite(value) ? `${figure(value)} s` : `not within ${AT_MOST_SECONDS} s`
const sized = ({ devices, nodes }: Fleet): string[] => [count(devices), count(nodes)]
const SIZED = ['devices', 'nodes']

/** The tables as they stand in docs/scaling.md, between its marks; `origin` says where the costs are from. */
export function showCapacity(costs: Costs, origin: string): string {
  const price = pricesOf(costs)
  return [
    '<!-- capacity -->',
    origin,
    showCosts(costs),
    'One node, in the steady state:',
    showNodes(price),
    'PostgreSQL and Redis, in the steady state:',
    showDatabase(price),
    'What happens at once, as simulated:',
    showHappenings(price),
    'What runs out first, as a share of what there is of it:',
    showUses(price),
    '<!-- end of capacity -->',
  ].join('\n\n')
}

const showCosts = (costs: Costs): string =>
  table(
    ['cost', 'what', 'from', 'value'],
    (Object.keys(COSTS) as CostName[]).map((name) => {
      const { what, from, value, unit } = costs[name]
      return [`\`${name}\``, what, from, `${figure(value)} ${unit}`]
    }),
  )

const showNodes = (price: Prices): string =>
  table(
    [
      ...SIZED,
      'devices of one',
      'CPU',
      'idle',
      'commands',
      'broadcasts',
      'hints',
      'memory',
      'of it for clients of all nodes',
    ],
    FLEETS.map((fleet) => {
      const { devices, cpu, memoryMiB } = loadOf(fleet, price).node
      return [
        ...sized(fleet),
        count(devices),
        ...[total(cpu), cpu.idle, cpu.commands, cpu.broadcasts, cpu.hints].map(percent),
        `${count(total(memoryMiB))} MiB`,
        `${count(memoryMiB.registered)} MiB`,
      ]
    }),
  )

const showDatabase = (price: Prices): string =>
  table(
    [
      ...SIZED,
      'commands/s',
      'cores',
      'of it for the sweep',
      'statements/s',
      'rows/day',
      'disk/day',
      'disk kept',
      'WAL',
      'Redis in',
      'Redis out',
    ],
    FLEETS.map((fleet) => {
      const { database, redis, commandsPerSecond } = loadOf(fleet, price)
      return [
        ...sized(fleet),
        figure(commandsPerSecond),
        figure(total(database.cpu)),
        figure(database.cpu.sweep),
        count(database.statementsPerSecond),
        count(database.rowsPerDay),
        `${figure(database.diskPerDayGiB)} GiB`,
        `${figure(database.diskKeptGiB)} GiB`,
        `${figure(database.walMiBPerSecond)} MiB/s`,
        `${count(redis.publishedPerSecond)}/s`,
        `${count(redis.deliveredPerSecond)}/s`,
      ]
    }),
  )

const showHappenings = (price: Prices): string =>
  table(
    [
      ...SIZED,
      'a node dies: half are back',
      'all are back',
      'attempts of one',
      'turned away',
      'a broadcast: insert',
      'all completed',
    ],
    FLEETS.map((fleet) => {
      const base = { seed: SEED, atMostSeconds: AT_MOST_SECONDS }
      const { back } = simulate(fleet, price, { ...base, nodeDies: { noticedWithinSeconds: 0 } })
      const { broadcast } = simulate(fleet, price, { ...base, broadcast: true })
      return [
        ...sized(fleet),
        ...[back.half, back.all].map(seconds),
        figure(back.attempts),
        count(back.turnedAway),
        ...[broadcast.insertSeconds, broadcast.allSeconds].map(seconds),
      ]
    }),
  )

const SHOWN_USES = 4

const showUses = (price: Prices): string =>
  table(
    [...SIZED, ...Array.from({ length: SHOWN_USES }, (_, index) => `${index + 1}.`)],
    FLEETS.map((fleet) => [
      ...sized(fleet),
      ...usesOf(fleet, loadOf(fleet, price))
        .slice(0, SHOWN_USES)
        .map(({ resource, share }) => `${resource}: ${share > 1 ? `**${percent(share)}**` : percent(share)}`),
    ]),
  )
