import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { judgeStand } from '../evidence.ts'
import type { FullDiskOrders, FullDiskWord } from '../full-disk-host.ts'
import { disorderOf, falsePresence, faultsOf, unavailable } from '../outage-judge.ts'
import { type Scene, type Sizes, type Suffered, startScene, suffer } from '../outage-scene.ts'
import type { OutageName } from '../outages.ts'
import { type Context, type Figures, NotRun, scenario, Violations } from '../scenario.ts'
import { mayMount, OWN_NAMESPACE } from '../small-disk.ts'

export const postgresRestarts = scenario<Sizes>({
  name: 'postgres-restarts',
  proves: 'PostgreSQL is shut down and started again under load: 503 meanwhile, nothing is lost, all drains by itself.',
  sizes: {
    short: { commands: 200, agents: 12, plain: 2, outages: 3, seconds: 0, timeout: 2, burst: 100 },
    long: { commands: 2000, agents: 100, plain: 10, outages: 20, seconds: 0, timeout: 5, burst: 2000 },
  },
  run: (sizes, context) => run(['fast shutdown'], sizes, context),
})

export const postgresKills = scenario<Sizes>({
  name: 'postgres-kills',
  proves: 'PostgreSQL, or one process of it, is killed with -9 under load and recovers: what was answered is there.',
  sizes: {
    short: { commands: 150, agents: 12, plain: 2, outages: 4, seconds: 0, timeout: 2, burst: 100 },
    long: { commands: 2000, agents: 100, plain: 10, outages: 40, seconds: 0, timeout: 5, burst: 2000 },
  },
  run: (sizes, context) => run(['postmaster killed', 'a backend killed'], sizes, context),
})

export const postgresFreezes = scenario<Sizes>({
  name: 'postgres-freezes',
  proves:
    'Every process of PostgreSQL is stopped under load: 503 in time, no PUBACK, pings are answered, then all drains in order.',
  sizes: {
    short: { commands: 300, agents: 12, plain: 2, outages: 1, seconds: 8, timeout: 2, burst: 1000 },
    long: { commands: 2000, agents: 100, plain: 10, outages: 5, seconds: 30, timeout: 5, burst: 5000 },
  },
  run: (sizes, context) => run(['frozen'], sizes, context),
})

export const postgresFullDisk = scenario<Sizes>({
  name: 'postgres-full-disk',
  proves: 'The disk of PostgreSQL is full under load, first for tables, then for its log: no PUBACK without a commit.',
  sizes: {
    short: { commands: 200, agents: 12, plain: 2, outages: 2, seconds: 4, timeout: 2, burst: 300 },
    long: { commands: 2000, agents: 100, plain: 10, outages: 10, seconds: 20, timeout: 5, burst: 2000 },
  },
  async run(sizes, context) {
    const here = mayMount()
    if (here.yes) return await fullDisk(sizes, context)
    const apart = mayMount(OWN_NAMESPACE)
    if (apart.yes) return await fullDiskApart(sizes, context)
    throw new NotRun(`no small disk can be mounted: ${here.why}; nor in a namespace: ${apart.why}`)
  },
})

export const fullDisk = (sizes: Sizes, context: Context): Promise<Figures> =>
  run(['no room for tables', 'no room for the log'], sizes, context)

/** The same in a process that may mount disks for itself. */
async function fullDiskApart(sizes: Sizes, { seed, say }: Context): Promise<Figures> {
  const [unshare = '', ...options] = OWN_NAMESPACE
  const program = fileURLToPath(new URL('../full-disk-host.ts', import.meta.url))
  const child = fork(program, { execPath: unshare, execArgv: [...options, process.execPath] })
  let figures: Figures | undefined
  let failure = 'its process ended early'
  child.on('message', (word: FullDiskWord) => {
    if ('say' in word) say(word.say)
    else if ('figures' in word) figures = word.figures
    else failure = word.failure
  })
  child.send({ sizes, seed } satisfies FullDiskOrders)
  await once(child, 'exit')
  if (!figures) throw new Error(failure)
  return figures
}

async function run(names: OutageName[], sizes: Sizes, { seed, say }: Context): Promise<Figures> {
  const scene = await startScene(sizes, seed, names.includes('no room for tables'))
  const { device, fleet, lookout, knocker, quitter } = scene
  await using stand = scene.stand
  const outages: Suffered[] = []
  for (let count = 0; count < sizes.outages; count++) {
    const one = await suffer(scene, names[count % names.length] as OutageName)
    say(inWords(one, scene))
    outages.push(one)
  }
  await lookout[Symbol.asyncDispose]()
  await device.finish()
  const wrong = faultsOf(scene, outages)
  wrong.push(...(await falsePresence(stand, [...fleet.clientIds, device.clientId])))
  // They were targets of each broadcast and took nothing: what was not handed out ends with them.
  for (const { clientId } of [knocker, quitter]) await stand.api.send('DELETE', `/clients/${clientId}`)
  await stand.settled()
  wrong.push(...(await disorderOf(scene)))
  await fleet.stop()
  if (wrong.length > 0) throw new Violations(wrong)
  const accepted = [...scene.own, ...scene.loads.flatMap((load) => load.accepted)]
  const plain = new Set([...fleet.plainIds, device.clientId])
  const judged = await judgeStand(stand, {
    load: { accepted },
    plain: [...fleet.plain, device],
    devices: { plain, lostMemory: new Set(), agentsWereKilled: false },
  })
  return { commands: accepted.length, ...judged, ...figuresOf(scene, outages) }
}

const ms = (figure: number): string => `${Math.round(figure)} ms`

const inWords = (one: Suffered, scene: Scene): string =>
  [
    `${one.name}: away ${ms(one.back - one.from)}`,
    `${unavailable(scene, one).length} answers 503`,
    `${one.held} held`,
    `drained in ${ms(one.drainedMs)}`,
    `new work in ${ms(one.newWorkMs)}`,
    `grown by ${Math.round(one.grownMiB)} MiB`,
  ].join(', ')

function figuresOf({ lookout, loads }: Scene, outages: Suffered[]): Figures {
  const refused = lookout.answers.filter(({ status }) => status === 503)
  const most = (figures: number[]): number => Math.round(Math.max(0, ...figures))
  return {
    outages: outages.length,
    'away, s': Math.round(outages.reduce((sum, { from, back }) => sum + back - from, 0) / 1000),
    'answers 503': refused.length,
    'slowest 503, ms': most(refused.map(({ from, at }) => at - from)),
    'slowest answer, ms': most(lookout.answers.map(({ from, at }) => at - from)),
    'CONNACK 3': lookout.knocks.filter(({ returnCode }) => returnCode === 3).length,
    'held at most': most(outages.map(({ held }) => held)),
    'drained within, ms': most(outages.map(({ drainedMs }) => drainedMs)),
    'new work within, ms': most(outages.map(({ newWorkMs }) => newWorkMs)),
    'grown by at most, MiB': most(outages.map(({ grownMiB }) => grownMiB)),
    repeated: loads.reduce((sum, load) => sum + load.repeated, 0),
  }
}
