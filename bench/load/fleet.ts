import { randomUUID } from 'node:crypto'
import type * as mqtt from 'mqtt-packet'
import { buildTopic, type TopicName } from '../../schemas/topics.ts'
import type { Account } from '../accounts.ts'
import { type Connection, openConnection } from './mqtt.ts'
import type { Attempt } from './work.ts'

export const ROOT = 'signalbox/v1'

export interface Device {
  account: Account
  /** The current one. */
  connection: Connection
  /** Names its durable memory, if it has one. */
  journalId: string | undefined
  /** What it remembers of its work, by command id and attempt. */
  attempts: Map<string, Attempt>
}

/** How the devices of a fleet connect: what can be told to another process. */
export interface FleetOrders {
  port: number
  accounts: Account[]
  topics: TopicName[]
  /** They publish a status with a journalId before they subscribe, as the agent does. */
  journals: boolean
  keepaliveSeconds: number
  /** Devices between their SYN and their SUBACK at once. */
  connecting: number
}

export interface Fleet {
  devices: Device[]
  /** All of them, or these, connect and subscribe; resolves at the last SUBACK. */
  connect(devices?: Device[]): Promise<void>
  /** Throws if a connection was lost that nobody dropped, or a device was told of an error. */
  check(): void
}

export function createFleet(
  orders: FleetOrders,
  command: (device: Device, packet: mqtt.IPublishPacket) => void,
): Fleet {
  const { port, keepaliveSeconds } = orders
  let failure: Error | undefined
  const devices = orders.accounts.map((account) => ({
    account,
    // `connect` makes it, before anybody has the device in hand.
    connection: undefined as unknown as Connection,
    journalId: orders.journals ? randomUUID() : undefined,
    attempts: new Map<string, Attempt>(),
  }))

  const fail = (error: Error): void => {
    failure ??= error
  }
  const connectOne = (device: Device): Promise<void> =>
    new Promise((resolve, reject) => {
      const { account, journalId } = device
      const topics = orders.topics.map((name) => buildTopic(ROOT, name, { clientId: account.id }))
      device.connection = openConnection({
        port,
        account,
        keepaliveSeconds,
        ready(connection) {
          if (journalId !== undefined) {
            const status = JSON.stringify({ state: 'online', journalId })
            connection.publish(
              buildTopic(ROOT, 'clientStatus', { clientId: account.id }),
              status,
              () => undefined,
              true,
            )
          }
          connection.subscribe(topics, resolve)
        },
        message(packet) {
          if (packet.topic.endsWith('/commands')) return command(device, packet)
          device.connection.puback(packet.messageId as number)
          if (packet.topic.endsWith('/replies')) fail(new Error(`${account.id} was told ${packet.payload}`))
        },
        lost(error) {
          fail(error)
          reject(error)
        },
      })
    })

  return {
    devices,
    async connect(chosen = devices) {
      const queue = chosen.values()
      const lane = async (): Promise<void> => {
        for (const device of queue) await connectOne(device)
      }
      await Promise.all(Array.from({ length: orders.connecting }, lane))
    },
    check() {
      if (failure) throw failure
    },
  }
}
