import { once } from 'node:events'
import { createConnection, type Socket } from 'node:net'
import { Aedes, type PublishPacket } from 'aedes'
import * as mqtt from 'mqtt-packet'
import { expect } from 'vitest'
import { connectDevice, type Device, type DeviceOptions, ROOT } from '../../support/device.ts'
import { ADMIN_TOKEN, type TestServer } from '../../support/server.ts'
import { until } from '../../support/until.ts'

export const own = (clientId: string, rest: string): string => `${ROOT}/clients/${clientId}/${rest}`
export const commandsOf = (clientId: string): string => own(clientId, 'commands')

/** Registers a client; answers its key. */
export async function register(
  server: Pick<TestServer, 'api'>,
  id: string,
  body: Record<string, unknown> = {},
): Promise<string> {
  const { status, body: created } = await server.api.post('/clients', { id, ...body })
  expect(status, JSON.stringify(created)).toBe(201)
  return created.clientKey
}

/** Connects as a registered client; optionally publishes a status with a journal, then subscribes to its commands. */
export async function enter(
  server: TestServer,
  clientId: string,
  password: string,
  { journalId, ...options }: Partial<DeviceOptions> & { journalId?: string } = {},
): Promise<Device> {
  const device = await connectDevice(server, { clientId, password, ...options })
  expect(device.returnCode).toBe(0)
  if (journalId !== undefined) await device.publish(own(clientId, 'status'), { state: 'online', journalId })
  expect(await device.subscribe(commandsOf(clientId))).toEqual([1])
  return device
}

/** An administrator's login, as `mosquitto_sub` makes it. */
export async function technician(server: TestServer, clientId: string, filter?: string): Promise<Device> {
  const device = await connectDevice(server, { clientId, username: 'admin', password: ADMIN_TOKEN })
  expect(device.returnCode).toBe(0)
  if (filter !== undefined) expect(await device.subscribe(filter)).toEqual([1])
  return device
}

/** Sends a command; answers its id. */
export async function command(server: TestServer, clientId: string, body: Record<string, unknown> = {}) {
  const { status, body: created } = await server.api.post('/commands', { clientId, action: 'do', ...body })
  expect(status, JSON.stringify(created)).toBe(201)
  return created.id as string
}

export const statusOf = async (server: TestServer, id: string): Promise<string> =>
  (await server.api.get(`/commands/${id}`)).body.status

export async function untilStatus(server: TestServer, id: string, status: string) {
  let seen: Record<string, unknown> = {}
  await until(async () => {
    seen = (await server.api.get(`/commands/${id}`)).body
    return seen.status === status
  }, `command ${id} ${status}`).catch((error: Error) => {
    throw new Error(`${error.message}: it is ${JSON.stringify(seen)}`)
  })
  return seen
}

export async function timelineOf(server: TestServer, id: string): Promise<string[]> {
  const { body } = await server.api.get(`/commands/${id}/timeline?limit=200`)
  return body.items.map((event: { type: string }) => event.type)
}

/** The code with which `explain` says why a command has not moved. */
export async function explain(server: TestServer, id: string): Promise<string | undefined> {
  return (await server.api.get(`/commands/${id}/explain`)).body.items[0]?.code
}

export const untilExplained = (server: TestServer, id: string, code: string) =>
  until(async () => (await explain(server, id)) === code, `explain ${code}`)

/** Log lines with this message and these fields. */
export function logged(server: TestServer, msg: string, fields: Record<string, unknown> = {}) {
  return server.logs.filter(
    (line) => line.msg === msg && Object.entries(fields).every(([key, value]) => line[key] === value),
  )
}

export const CONNECT = {
  cmd: 'connect',
  protocolId: 'MQTT',
  protocolVersion: 4,
  clean: true,
  keepalive: 60,
  clientId: '',
} as const satisfies mqtt.IConnectPacket

export interface RawSocket {
  socket: Socket
  packets: mqtt.Packet[]
  readonly closed: boolean
}

/** A bare TCP connection: the test writes what it wants, well-formed or not. */
export async function openSocket(server: TestServer): Promise<RawSocket> {
  const socket = createConnection({ port: server.mqttPort, host: '127.0.0.1', noDelay: true })
  await once(socket, 'connect')
  const parser = mqtt.parser({ protocolVersion: 4 })
  const packets: mqtt.Packet[] = []
  parser.on('packet', (packet) => packets.push(packet))
  socket.on('data', (chunk) => parser.parse(chunk))
  socket.on('error', () => undefined)
  return {
    socket,
    packets,
    get closed() {
      return socket.closed
    },
  }
}

/** The code of the CONNACK to any CONNECT; -1 when the connection is closed without one. */
export async function returnCodeOf(server: TestServer, connect: Partial<mqtt.IConnectPacket>): Promise<number> {
  const raw = await openSocket(server)
  raw.socket.write(mqtt.generate({ ...CONNECT, ...connect }))
  const answer = await until(() => raw.packets[0] ?? (raw.closed ? { returnCode: -1 } : undefined), 'CONNACK')
  raw.socket.destroy()
  return (answer as mqtt.IConnackPacket).returnCode ?? -1
}

export interface WatchedBroker extends Pick<Aedes, 'publish'> {
  clients: Record<
    string,
    { closed: boolean; conn: { writableNeedDrain: boolean }; subscriptions: Record<string, unknown> } | undefined
  >
  /** Publishes on this topic are written, but whoever made them hears of it only when `until` resolves; answers how to end that. */
  delayAnswer(topic: string, until: Promise<void>): () => void
}

/** Call it before `startServer`: answers Aedes itself, to see whom it knows. */
export function watchBroker(): () => WatchedBroker {
  const create = Aedes.createBroker.bind(Aedes)
  let inside: Aedes | undefined
  Aedes.createBroker = async (options) => {
    inside = await create(options)
    return inside
  }
  return () => {
    const aedes = inside as Aedes
    return Object.assign(aedes as unknown as Pick<WatchedBroker, 'clients' | 'publish'>, {
      delayAnswer(topic: string, until: Promise<void>) {
        const publish = aedes.publish
        aedes.publish = (packet: PublishPacket, done: (error?: Error) => void) =>
          publish.call(aedes, packet, (error) =>
            packet.topic === topic ? void until.then(() => done(error)) : done(error),
          )
        return () => {
          aedes.publish = publish
        }
      },
    })
  }
}
