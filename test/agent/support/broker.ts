import { type AddressInfo, createServer, type Socket } from 'node:net'
import { Aedes, type AedesPublishPacket, type Client } from 'aedes'
import mqttPacket from 'mqtt-packet'
import type { Report } from '../../../schemas/messages.ts'
import { buildTopic, parseTopic } from '../../../schemas/topics.ts'

export const ROOT = 'signalbox/v1'

export interface SeenReport extends Report {
  id: string
}

export interface TestBroker {
  url: string
  /** What the agent did, in order: `connect`, `status <journalId>`, `subscribe <topic>`, `report ...`. */
  log: string[]
  reports: SeenReport[]
  statuses: Record<string, unknown>[]
  /** Answers CONNECT with this code. */
  refuse: number | undefined
  /** Holds the PUBACKs of reports back, until set to false. */
  holdReports: boolean
  /** Holds the PUBACK of the status back, until set to false. */
  holdStatus: boolean
  refusedTopics: Set<string>
  /** PUBACKs that came from the agent. */
  acks: number
  onPuback?: () => void
  send(topic: string, message: unknown, options?: { retain?: boolean }): Promise<void>
  toClient(clientId: string, message: unknown): Promise<void>
  subscriptions(clientId: string): string[]
  connections(): number
  /** Cuts every socket. */
  cut(): void
  close(): Promise<void>
}

/** A real broker on a free port that answers everything but keeps count; it stands for the server. */
export async function startBroker(): Promise<TestBroker> {
  const aedes = await Aedes.createBroker()
  const sockets = new Set<Socket>()
  const reports = gate()
  const statuses = gate()
  let connections = 0
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    onPuback(socket, () => {
      broker.acks++
      broker.onPuback?.()
    })
    aedes.handle(socket)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const port = (server.address() as AddressInfo).port

  aedes.authenticate = (client, _username, _password, done) => {
    forgetNothing(client)
    if (broker.refuse !== undefined) {
      return done(Object.assign(new Error('refused'), { returnCode: broker.refuse }), false)
    }
    connections++
    broker.log.push('connect')
    done(null, true)
  }
  aedes.authorizeSubscribe = (_client, subscription, done) => {
    broker.log.push(`subscribe ${subscription.topic}`)
    done(null, broker.refusedTopics.has(subscription.topic) ? null : subscription)
  }
  aedes.authorizePublish = (client, packet, done) => {
    const parsed = parseTopic(ROOT, packet.topic)
    if (!client || !parsed) return done(null)
    const body = JSON.parse(packet.payload.toString())
    if (parsed.name === 'clientStatus') {
      broker.statuses.push(body)
      broker.log.push(`status ${body.journalId}`)
      return statuses.pass(() => done(null))
    }
    const report = { ...body, id: parsed.params.commandId }
    broker.reports.push(report)
    broker.log.push(`report ${report.status} ${report.id}/${report.attempt}`)
    reports.pass(() => done(null))
  }
  const publish = (packet: Partial<AedesPublishPacket>): Promise<void> =>
    new Promise((resolve, reject) => {
      aedes.publish(packet as AedesPublishPacket, (error) => (error ? reject(error) : resolve()))
    })

  const broker: TestBroker = {
    url: `mqtt://127.0.0.1:${port}`,
    log: [],
    reports: [],
    statuses: [],
    refuse: undefined,
    refusedTopics: new Set(),
    acks: 0,
    get holdReports() {
      return reports.closed()
    },
    set holdReports(value) {
      reports.set(value)
    },
    get holdStatus() {
      return statuses.closed()
    },
    set holdStatus(value) {
      statuses.set(value)
    },
    send: (topic, message, { retain = false } = {}) =>
      publish({ cmd: 'publish', topic, qos: 1, retain, dup: false, payload: textOf(message) }),
    toClient: (clientId, message) => broker.send(buildTopic(ROOT, 'clientCommands', { clientId }), message),
    subscriptions: (clientId) => {
      const clients = (aedes as unknown as { clients: Record<string, { subscriptions: object }> }).clients
      return Object.keys(clients[clientId]?.subscriptions ?? {})
    },
    connections: () => connections,
    cut: () => {
      for (const socket of sockets) socket.destroy()
    },
    close: async () => {
      const closed = new Promise((resolve) => server.close(resolve))
      for (const socket of sockets) socket.destroy()
      await new Promise<void>((resolve) => aedes.close(() => resolve()))
      await closed
    },
  }
  return broker
}

/** Lets everything pass, or holds it until it is opened. */
function gate() {
  const held: (() => void)[] = []
  let shut = false
  return {
    closed: () => shut,
    pass: (go: () => void): void => void (shut ? held.push(go) : go()),
    set: (value: boolean): void => {
      shut = value
      if (!value) for (const go of held.splice(0)) go()
    },
  }
}

const textOf = (message: unknown): string => (typeof message === 'string' ? message : JSON.stringify(message))

/** Reads along: Aedes tells nobody of the PUBACKs in a clean session. */
function onPuback(socket: Socket, listener: () => void): void {
  const parser = mqttPacket.parser()
  parser.on('packet', (packet) => packet.cmd === 'puback' && listener())
  const read = socket.read.bind(socket)
  socket.read = (size) => {
    const chunk: Buffer | null = read(size)
    if (chunk) parser.parse(chunk)
    return chunk
  }
}

/** Aedes drops live messages that others overtook (mechanisms, 1). */
function forgetNothing(client: Client): void {
  const duplicates = new Proxy({}, { get: () => 0, set: () => true, deleteProperty: () => true })
  Object.assign(client, { duplicates })
}
