import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { COSTS, type CostName } from '../../bench/capacity/costs.ts'
import { FLEETS, type Fleet, fleetOf } from '../../bench/capacity/fleet.ts'
import { loadOf, pricesOf, total, usesOf } from '../../bench/capacity/model.ts'
import { arrivals, createRandom } from '../../bench/capacity/random.ts'
import { showCapacity } from '../../bench/capacity/report.ts'
import { createNode, type Prices, WORK_KINDS, work } from '../../bench/capacity/simulated-node.ts'
import { simulate } from '../../bench/capacity/simulation.ts'

const price = pricesOf(COSTS)

const fleets = fc.record({
  devices: fc.integer({ min: 1, max: 1_000_000 }),
  nodes: fc.integer({ min: 1, max: 64 }),
  commandsPerDeviceHour: fc.nat(100),
  broadcastsPerDay: fc.nat(100),
  reconnectsPerDeviceDay: fc.nat(10),
  databaseCores: fc.integer({ min: 1, max: 64 }),
})
const close = (value: number): number => expect.closeTo(value, 6)

describe('the model', () => {
  test('twice the nodes never make the load of one greater', () => {
    fc.assert(
      fc.property(fleets, (fleet) => {
        const less = loadOf(fleet, price).node
        const more = loadOf({ ...fleet, nodes: fleet.nodes * 2 }, price).node
        expect(more.devices).toBeLessThanOrEqual(less.devices)
        expect(total(more.memoryMiB)).toBeLessThanOrEqual(total(less.memoryMiB))
        const withoutReading = ({ hints, ...own }: typeof less.cpu): number => total(own)
        expect(withoutReading(more.cpu)).toBeLessThanOrEqual(withoutReading(less.cpu))
      }),
    )
  })

  test('what the nodes do together does not depend on their number, but for what they tell each other', () => {
    fc.assert(
      fc.property(fleets, fc.integer({ min: 1, max: 64 }), (fleet, nodes) => {
        const [one, other] = [loadOf(fleet, price), loadOf({ ...fleet, nodes }, price)]
        for (const part of ['idle', 'commands', 'broadcasts', 'reconnects'] as const) {
          const together = one.node.cpu[part] * fleet.nodes
          expect((other.node.cpu[part] * nodes) / (together || 1)).toEqual(together === 0 ? 0 : close(1))
        }
        expect(other.database.rowsPerDay).toBe(one.database.rowsPerDay)
        // A node looks at so many sessions at a time, however many it has.
        expect(other.database.cpu.sweep).toBeLessThanOrEqual((nodes * 1001 * price.sweepCpu) / 1e6)
      }),
    )
  })

  test('twice the devices need at least as much of everything', () => {
    fc.assert(
      fc.property(fleets, (fleet) => {
        const twice = { ...fleet, devices: fleet.devices * 2 }
        const shares = (of: Fleet) =>
          Object.fromEntries(usesOf(of, loadOf(of, price)).map((use) => [use.resource, use.share]))
        const [less, more] = [shares(fleet), shares(twice)]
        for (const [resource, share] of Object.entries(less))
          expect(more[resource], resource).toBeGreaterThanOrEqual(share)
      }),
    )
  })

  test('one node tells nobody anything', () => {
    expect(loadOf(fleetOf(1000, 1), price)).toMatchObject({
      node: { cpu: { hints: 0 } },
      redis: { publishedPerSecond: 0, deliveredPerSecond: 0 },
    })
  })

  test('what is fullest comes first, and what becomes dearer becomes fuller', () => {
    for (const fleet of FLEETS) {
      const uses = usesOf(fleet, loadOf(fleet, price))
      expect(uses.map(({ share }) => share)).toEqual(uses.map(({ share }) => share).toSorted((a, b) => b - a))
      const dear = usesOf(fleet, loadOf(fleet, { ...price, broadcastInsert: price.broadcastInsert * 1e6 }))
      expect(dear[0]?.resource).toContain('insert of a broadcast')
    }
  })

  test('every cost is used: where it is another one, so is what comes of it', () => {
    const fleet = fleetOf(10_000, 2)
    const happening = { seed: 1, nodeDies: { noticedWithinSeconds: 0 }, broadcast: true, atMostSeconds: 60 }
    const outcome = (of: typeof price): string => JSON.stringify([loadOf(fleet, of), simulate(fleet, of, happening)])
    const before = outcome(price)
    for (const name of Object.keys(COSTS) as CostName[]) {
      expect(outcome({ ...price, [name]: price[name] * 2 }), name).not.toBe(before)
    }
  })

  test('its tables have a row for each fleet', () => {
    const rows = showCapacity(COSTS, 'from somewhere').split('\n')
    for (const { devices, nodes } of FLEETS) {
      const begin = `| ${devices.toLocaleString('en')} | ${nodes} | `
      expect(rows.filter((row) => row.startsWith(begin))).toHaveLength(4)
    }
  })
})

describe('a node that dies', () => {
  const dies = { seed: 1, nodeDies: { noticedWithinSeconds: 0 }, atMostSeconds: 1800 }

  test('every device is online in the end, and every command is done or waits', () => {
    const small = fc.record({ devices: fc.integer({ min: 1, max: 3000 }), nodes: fc.integer({ min: 2, max: 8 }) })
    fc.assert(
      fc.property(small, fc.integer(), fc.integer({ min: 0, max: 60 }), ({ devices, nodes }, seed, noticed) => {
        const fleet = fleetOf(devices, nodes)
        const outcome = simulate(fleet, price, { ...dies, seed, nodeDies: { noticedWithinSeconds: noticed } })
        expect(outcome.online).toBe(devices)
        expect(outcome.back.all).toBeGreaterThanOrEqual(outcome.back.half)
        expect(outcome.commands.done + outcome.commands.left).toBe(outcome.commands.posted)
      }),
      { numRuns: 30 },
    )
  })

  test('the same seed plays the same, another one another', () => {
    const fleet = fleetOf(20_000, 3)
    expect(simulate(fleet, price, dies)).toEqual(simulate(fleet, price, dies))
    expect(simulate(fleet, price, { ...dies, seed: 2 })).not.toEqual(simulate(fleet, price, dies))
  })

  test('slow logins make them come later, and those who wait too long come again', () => {
    const fleet = fleetOf(10_000, 2)
    const quick = simulate(fleet, price, dies)
    const slow = simulate(fleet, { ...price, connectCpu: 15_000 }, dies)
    expect(quick.back.attempts).toBe(1)
    expect(slow.online).toBe(10_000)
    expect(slow.back.all).toBeGreaterThan(quick.back.all)
    expect(slow.back.turnedAway).toBeGreaterThan(0)
    expect(slow.back.attempts).toBeGreaterThan(1)
  })

  test('those for whom there is no socket stay away, and that is said', () => {
    const outcome = simulate(fleetOf(60_000, 2), price, { ...dies, atMostSeconds: 300 })
    expect(outcome.online).toBe(50_000)
    expect(outcome.back.all).toBe(Number.POSITIVE_INFINITY)
  })

  test('of one node none can die', () => {
    expect(() => simulate(fleetOf(10, 1), price, dies)).toThrow('no other to come back to')
  })
})

describe('a broadcast', () => {
  const posted = { seed: 1, broadcast: true, atMostSeconds: 1800 }

  test.each(FLEETS.map((fleet) => [fleet.devices, fleet.nodes, fleet] as const))(
    'to %i devices on %i nodes is completed by each, not before it is stored',
    (devices, _, fleet) => {
      const { broadcast } = simulate(fleet, price, posted)
      expect(broadcast.completed).toBe(devices)
      expect(broadcast.allSeconds).toBeGreaterThan(broadcast.insertSeconds)
    },
  )

  test('it also reaches those who were away when a node died', () => {
    const outcome = simulate(fleetOf(5000, 3), price, { ...posted, nodeDies: { noticedWithinSeconds: 20 } })
    expect(outcome.online).toBe(5000)
    expect(outcome.broadcast.completed).toBe(5000)
    expect(outcome.broadcast.allSeconds).toBeGreaterThanOrEqual(outcome.back.all)
  })
})

describe('one step', () => {
  const prices: Prices = {
    connects: { node: 0.001, database: 0.0005 },
    commands: { node: 0.002, database: 0.001 },
    broadcasts: { node: 0.0005, database: 0.002 },
  }

  test('does nothing that there is no time for, and everything in the end', () => {
    const loads = fc.array(fc.record({ commands: fc.nat(50), broadcasts: fc.nat(50), connects: fc.nat(50) }), {
      minLength: 1,
      maxLength: 4,
    })
    fc.assert(
      fc.property(loads, (given) => {
        const nodes = given.map(({ commands, broadcasts, connects }) => ({
          ...createNode(0),
          commands,
          broadcasts,
          waiting: Array.from({ length: connects }, (_, device) => ({ device, since: 0 })),
        }))
        const isLeft = () => nodes.some((node) => node.commands + node.broadcasts + node.waiting.length > 0)
        const seen = nodes.map(() => ({ connects: 0, commands: 0, broadcasts: 0 }))
        for (let tick = 0; isLeft(); tick++) {
          expect(tick).toBeLessThan(10_000)
          const { done, nodeSeconds, databaseSeconds } = work(nodes, prices, 0.01, 0.02)
          expect(nodeSeconds).toBeLessThanOrEqual(0.01 + 1e-9)
          expect(databaseSeconds).toBeLessThanOrEqual(0.02 + 1e-9)
          for (const [index, each] of done.entries()) {
            nodes[index]?.waiting.splice(0, each.connects)
            for (const kind of WORK_KINDS) (seen[index] as typeof each)[kind] += each[kind]
          }
        }
        expect(seen).toEqual(given)
      }),
      { numRuns: 50 },
    )
  })

  test('as many arrive as there should on average', () => {
    const random = createRandom(7)
    for (const mean of [0, 0.3, 5, 400]) {
      const times = 5000
      let sum = 0
      for (let index = 0; index < times; index++) sum += arrivals(mean, random)
      // Five times the standard error.
      expect(Math.abs(sum / times - mean)).toBeLessThanOrEqual(5 * Math.sqrt(mean / times) + 1e-9)
    }
  })
})
