import { type Account, plainAccounts } from '../accounts.ts'
import type { FleetOrders } from '../load/fleet.ts'
import { startPart } from '../part.ts'
import type { AedesServer } from '../peers/aedes-server.ts'
import { MOSQUITTO, startMosquitto } from '../peers/mosquitto.ts'
import type { BaseSizes, Figures, Need, Subject } from '../scenario.ts'
import type { Stand } from '../stand.ts'
import { startOurs } from './ours.ts'

/** A broker that a fleet connects to: ours with everything behind it, or a bare one. */
export interface Broker extends AsyncDisposable {
  pid: number
  port: number
  accounts: Account[]
  /** CPU time, in µs, of what stands behind it, if anything does. */
  database?: () => number
  /** Waits until everybody is shown online; at a bare broker there is nobody to show it to. */
  allOnline(): Promise<void>
}

export interface BrokerKind {
  name: string
  needs?: Need
  start(stand: Stand, devices: number): Promise<Broker>
}

/** Makes a broker a subject: it is started for the measurement and stopped after it. */
export const measuredBy =
  <Sizes extends BaseSizes & { devices: number }>(measure: (broker: Broker, sizes: Sizes) => Promise<Figures>) =>
  ({ start, ...named }: BrokerKind): Subject<Sizes> => ({
    ...named,
    async measure(stand, sizes) {
      await using broker = await start(stand, sizes.devices)
      return await measure(broker, sizes)
    },
  })

const AEDES = new URL('../peers/aedes-server.ts', import.meta.url)

export const OURS: BrokerKind = {
  name: 'signalbox',
  async start(stand, devices) {
    const ours = await startOurs(stand, devices)
    return {
      pid: ours.server.pid,
      port: ours.server.mqttPort,
      accounts: ours.accounts,
      database: ours.cpu.database,
      async allOnline() {
        const sql = 'select count(*) from clients where session_epoch is not null'
        while (Number((await ours.database.query<{ count: string }>(sql))[0]?.count) < devices);
      },
      [Symbol.asyncDispose]: () => ours[Symbol.asyncDispose](),
    }
  },
}

export const BARE_AEDES: BrokerKind = {
  name: 'aedes',
  async start(_stand, devices) {
    const aedes = await startPart<AedesServer>(AEDES, {})
    return {
      pid: aedes.pid,
      port: await aedes.call.port(),
      accounts: plainAccounts(devices),
      allOnline: async () => undefined,
      [Symbol.asyncDispose]: () => aedes[Symbol.asyncDispose](),
    }
  },
}

export const BARE_MOSQUITTO: BrokerKind = {
  name: 'mosquitto',
  needs: MOSQUITTO,
  async start(stand, devices) {
    const mosquitto = await startMosquitto(stand.directory)
    return { ...mosquitto, accounts: plainAccounts(devices), allOnline: async () => undefined }
  },
}

/** The same devices at every broker: without a journal, and with the same two subscriptions. */
export const equalFleet = ({ port, accounts }: Pick<Broker, 'port' | 'accounts'>): FleetOrders => ({
  port,
  accounts,
  topics: ['clientCommands', 'broadcastCommands'],
  journals: false,
  keepaliveSeconds: 60,
  connecting: 200,
})
