import type { PublishPacket } from 'aedes'
import type { Control } from '../control/control.ts'
import { ClientStatus } from '../schemas/clients.ts'
import { AppError } from '../schemas/errors.ts'
import { decodeJson, type Json, jsonFault } from '../schemas/json.ts'
import { ClientEvent, Report } from '../schemas/messages.ts'
import type { Settings } from '../schemas/settings.ts'
import type { ParsedTopic, TopicName } from '../schemas/topics.ts'
import { forbiddenTopic, mayPublish } from './access.ts'
import type { Connection } from './connections.ts'
import type { LimitedLog } from './limited-log.ts'
import type { Reading } from './reading.ts'

/** A topic that nobody can subscribe to: a message retargeted to it is acknowledged and goes nowhere. */
const DROPPED = '$dropped'

interface Message {
  connection: Connection
  clientId: string
  params: ParsedTopic['params']
  body: unknown
}

/**
 * Takes in what clients publish. Aedes writes the PUBACK when `receive` resolves: after the commit (rule 3).
 * Throws if the client may not publish there, which closes the connection: 3.1.1 has no other answer.
 */
export function createReceiver(deps: { settings: Settings; limitedLog: LimitedLog; control: Control }) {
  const { settings, control, limitedLog } = deps

  /** What each topic means; a handler parses its payload and resolves after the commit. */
  const handlers: Partial<Record<TopicName, (message: Message) => Promise<void>>> = {
    async clientStatus({ connection, body }) {
      const { session } = connection
      const status = ClientStatus.parse(body)
      if (!session) return
      const before = session.statusSeen ? session.journalId : undefined
      const committed = control.sessions.status(session, status, 'hold')
      connection.statusCommitted = committed.catch(() => undefined)
      await committed
      control.statuses.published(session, status as Record<string, Json>)
      // A status that comes after the subscription: what waited for the journal can be decided now.
      if (session.subscription === 'granted' && session.journalId !== before) await control.dispatch.ready(session)
    },
    async commandStatus({ connection, clientId, params, body }) {
      const report = Report.parse(body)
      await connection.statusCommitted
      const journalId = connection.session?.journalId ?? null
      await control.uplink.report(clientId, params.commandId as string, report, journalId, 'hold')
    },
    async clientEvent({ clientId, params, body }) {
      await control.uplink.event(clientId, params.type as string, ClientEvent.parse(body))
    },
  }

  async function receive(connection: Connection, packet: PublishPacket): Promise<void> {
    const { login } = connection
    if (packet.qos === 2) throw new Error(`publish to ${packet.topic} at QoS 2: use QoS 1, commands have ids`)
    const topic = mayPublish(login, settings.MQTT_TOPIC_ROOT, packet.topic)
    if (typeof topic === 'string') {
      const reason = `publish to ${packet.topic}: ${topic}`
      control.securityLog.note(forbiddenTopic(login, connection.ip, reason))
      throw new Error(reason)
    }
    // Only the status is retained, and always: a report kept by the broker would be taken for news by whoever subscribes later.
    packet.retain = topic.spec.retain
    const work = handle(connection, topic, packet)
    // It may fail while the messages before it are still waited for: handled below, and never unheard.
    work.catch(() => undefined)
    const answered = connection.tail.then(() => work)
    connection.tail = answered.catch(() => undefined)
    hold(connection, answered)
    await answered
  }

  async function handle(connection: Connection, topic: ParsedTopic, packet: PublishPacket): Promise<void> {
    const clientId = topic.params.clientId as string
    try {
      const body = parse(packet.payload, settings.MAX_PAYLOAD_BYTES)
      await handlers[topic.name]?.({ connection, clientId, params: topic.params, body })
    } catch (error) {
      const fault = faultOf(error)
      if (!fault) throw error
      control.metrics.messageDropped(fault.code)
      const fields = { clientId, topic: packet.topic, code: fault.code, reason: fault.message }
      limitedLog('warn', clientId, fields, 'message dropped')
      const topicBefore = packet.topic
      packet.topic = DROPPED
      packet.retain = false
      await control.transport.reply(clientId, {
        type: 'error',
        code: fault.code,
        message: fault.message,
        topic: topicBefore,
      })
    }
  }

  /** Above the limit the socket is read no further until there is room: memory is bounded, and the device sees it. */
  function hold(connection: Connection, answered: Promise<void>): void {
    const { reading } = connection
    connection.held++
    if (connection.held > settings.MAX_HELD_REPORTS) reading.pause('held')
    // Not now: the parser is in the middle of a chunk.
    else setImmediate(readOnNow, reading)
    const done = (): void => {
      connection.held--
      if (connection.held === settings.MAX_HELD_REPORTS) reading.resume('held')
    }
    answered.then(done, done)
  }

  return receive
}

const readOnNow = (reading: Reading): void => reading.goOn()

function parse(payload: string | Buffer, maxBytes: number): unknown {
  const bytes = typeof payload === 'string' ? Buffer.from(payload) : payload
  if (bytes.length > maxBytes)
    throw new AppError('PAYLOAD_TOO_LARGE', `the payload has ${bytes.length} bytes, at most ${maxBytes} are taken`)
  const body = parseJson(bytes)
  // Whatever PostgreSQL cannot keep would fail at every repetition too: the whole payload is judged, not only what is stored today.
  const fault = jsonFault(body)
  if (fault) throw new AppError('INVALID_INPUT', `the payload ${fault}`)
  return body
}

function parseJson(bytes: Buffer): unknown {
  try {
    return decodeJson(bytes)
  } catch {
    throw new AppError('INVALID_INPUT', 'the payload is not JSON in UTF-8')
  }
}

/** The client's own faults, which it is told of; anything else is ours. */
function faultOf(error: unknown): { code: string; message: string } | undefined {
  if (error instanceof AppError && error.code !== 'UNAVAILABLE' && error.code !== 'INTERNAL') return error
  const issues = (error as { issues?: { path: PropertyKey[]; message: string }[] }).issues
  if (!Array.isArray(issues)) return undefined
  return {
    code: 'INVALID_INPUT',
    message: issues.map((issue) => `${issue.path.join('.') || 'payload'}: ${issue.message}`).join('; '),
  }
}
