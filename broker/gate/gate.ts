import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { plainAddress } from '../../control/access/actor.ts'
import { createLoginThrottle } from '../../control/access/login-throttle.ts'
import { senderOf } from '../../control/access/sender.ts'
import type { Settings } from '../../schemas/settings.ts'
import { nothing } from '../connections.ts'
import type { LimitedLog } from '../limited-log.ts'
import { type Refusal, refusalOf } from '../refusal.ts'
import { type AdmissionLimits, createAdmission, type Entrant } from './admission.ts'
import { type ConnectPacket, readConnect } from './connect-packet.ts'
import { type Frame, FrameReader } from './frames.ts'
import type { PacketLimits } from './packets.ts'
import { release } from './release.ts'

/** A connection whose CONNECT is well-formed and whose login is right. */
export interface Guest<Login> {
  stream: Duplex
  ip: string
  /** For the log: address and port. */
  address: string
  login: Login
  /** The CONNECT as it came, and what came behind it. */
  connect: Buffer
  rest: Buffer
  frames: FrameReader
  /** It is in: it counts for its address no longer. */
  settled(): void
}

/** What stands between the listeners and Aedes: nothing is handed on before somebody has said who he is. */
export interface Gate {
  /** A new socket, which is not read from yet; `begin` is called with it when it is its turn. */
  enter(socket: Socket, begin: (socket: Socket) => void): void
  /** The MQTT stream of a socket whose turn it is; `trusted` is called once its login is right. */
  open(stream: Duplex, socket: Socket, trusted?: () => void): void
  /** One step of the clock: what has waited too long ends. */
  step(): void
  /** Ends whatever has not been handed on. */
  stop(): void
}

/** Whose CONNECT it was, as far as it said. */
export interface Refused {
  /** With the port. */
  address: string
  client: string | undefined
  username: string | undefined
}

export interface GateDeps<Login> {
  settings: Settings
  log: LimitedLog
  packetLimits: PacketLimits
  /** Milliseconds, as `step` is called. */
  now(): number
  /** Who it is; throws a Refusal. */
  identify(connect: ConnectPacket, ip: string): Promise<Login>
  /** `sender`: who it counts for. */
  refused(refusal: Refusal, sender: string, who: Refused): void
  welcome(guest: Guest<Login>): void
}

export function createGate<Login>(deps: GateDeps<Login>): Gate {
  const { settings, log, now } = deps
  const admission = createAdmission(admissionLimits(settings), now)
  const loginThrottle = createLoginThrottle(settings.MQTT_LOGIN_FAILURES_PER_MINUTE)
  const visitors = new Map<Socket, Visitor>()
  /** Answers that are held back, by sender: a flood makes no more of them than of logins. */
  const delayed = new Map<string, number>()

  /** A socket that has not been handed on; it is kept for as long as it is open, since it counts. */
  class Visitor implements Entrant {
    readonly socket: Socket
    readonly ip: string
    readonly sender: string
    readonly address: string
    /** What happens to it when nothing else does before. */
    deadline: { at: number; then(): void } | undefined
    readonly #begin: (socket: Socket) => void

    constructor(socket: Socket, begin: (socket: Socket) => void) {
      this.socket = socket
      this.ip = plainAddress(socket.remoteAddress)
      this.sender = senderOf(this.ip)
      this.address = `${this.ip}:${socket.remotePort ?? '?'}`
      this.#begin = begin
    }

    start(): void {
      after(this, settings.MQTT_CONNECT_TIMEOUT_SECONDS, () => this.turnAway('no CONNECT in time'))
      this.#begin(this.socket)
    }

    turnAway(reason: string): void {
      const { socket, sender, address } = this
      log('info', sender, { address, reason }, 'connection turned away')
      socket.destroy()
    }
  }

  const after = (visitor: Visitor, seconds: number, then: () => void): void => {
    visitor.deadline = { at: now() + seconds * 1000, then }
  }

  function enter(socket: Socket, begin: (socket: Socket) => void): void {
    const visitor = new Visitor(socket, begin)
    visitors.set(socket, visitor)
    socket.on('error', nothing)
    socket.on('close', () => {
      visitors.delete(socket)
      admission.left(visitor)
    })
    admission.enter(visitor)
  }

  function open(stream: Duplex, socket: Socket, trusted?: () => void): void {
    const visitor = visitors.get(socket)
    if (!visitor || socket.destroyed) return void stream.destroy()
    const frames = new FrameReader(deps.packetLimits)
    stream.on('error', nothing)
    const read = (): void => {
      for (let chunk = stream.read() as Buffer | null; chunk !== null; chunk = stream.read() as Buffer | null) {
        const found = frames.first(chunk)
        // What a WebSocket brings is cut out of what was read, and is its own to keep.
        const discard = (): void => void (stream === socket && release(chunk))
        if (!found || !('rest' in found) || found.rest.length === 0) discard()
        if (!found) continue
        stream.off('readable', read)
        if ('fault' in found) visitor.turnAway(found.fault)
        else void login(visitor, { stream, frames, ...found }, { trusted, discard })
        return
      }
    }
    stream.on('readable', read)
  }

  async function login(
    visitor: Visitor,
    arrived: Pick<Guest<Login>, 'stream' | 'frames' | 'rest'> & { connect: Frame },
    { trusted, discard }: { trusted: (() => void) | undefined; discard(): void },
  ): Promise<void> {
    const { stream, connect } = arrived
    const verdict = readConnect(connect.bytes, connect.body, connect.bytes.length, deps.packetLimits)
    if (!('connect' in verdict)) discard()
    if ('fault' in verdict) return visitor.turnAway(verdict.fault)
    // Who it is may take as long as the database does.
    visitor.deadline = undefined
    if ('refusal' in verdict) return refuse(visitor, stream, verdict)
    try {
      const login = await deps.identify(verdict.connect, visitor.ip)
      if (visitor.socket.destroyed || stream.readableEnded) return void visitor.socket.destroy()
      visitors.delete(visitor.socket)
      trusted?.()
      const settled = (): void => admission.settled(visitor)
      deps.welcome({ ...arrived, connect: connect.bytes, ip: visitor.ip, address: visitor.address, login, settled })
    } catch (error) {
      discard()
      await refuse(visitor, stream, { refusal: refusalOf(error), ...verdict.connect })
    }
  }

  async function refuse(
    visitor: Visitor,
    stream: Duplex,
    { refusal, clientId: client, username }: { refusal: Refusal } & Partial<ConnectPacket>,
  ): Promise<void> {
    const { socket, ip, sender, address } = visitor
    const { returnCode } = refusal
    deps.refused(refusal, sender, { address, client, username })
    admission.settled(visitor)
    const answer = (): void => {
      // [MQTT-3.2.2-5]
      stream.end(Buffer.from([0x20, 2, 0, returnCode]), () => socket.destroy())
      after(visitor, settings.MQTT_SLOW_READER_SECONDS, () => socket.destroy())
    }
    const isBadLogin = returnCode === 4 || returnCode === 5
    const tooMany = isBadLogin && (await loginThrottle.failed(ip, username)) !== undefined
    // Who did not wait for the answer is gone already, and would be held back for ever.
    if (socket.destroyed) return
    if (tooMany) holdBack(visitor, stream, answer)
    else answer()
  }

  /** Slows down who tries again and again, a device with a wrong key as well as an attacker. */
  function holdBack(visitor: Visitor, stream: Duplex, answer: () => void): void {
    const { sender, socket } = visitor
    const held = delayed.get(sender) ?? 0
    // A flood: its answers would cost more than its logins.
    if (held >= settings.MQTT_MAX_UNAUTHENTICATED_PER_ADDRESS) return void socket.destroy()
    delayed.set(sender, held + 1)
    socket.once('close', () => {
      const left = (delayed.get(sender) ?? 1) - 1
      if (left > 0) delayed.set(sender, left)
      else delayed.delete(sender)
    })
    after(visitor, settings.MQTT_FAILED_LOGIN_DELAY_SECONDS, answer)
    // What it sends meanwhile is not kept for it.
    stream.on('readable', () => stream.readableLength > deps.packetLimits.connectBytes && socket.destroy())
  }

  return {
    enter,
    open,
    step() {
      for (const visitor of visitors.values()) {
        // It began somewhere within a step: only one step more is surely as long.
        if (!visitor.deadline || now() <= visitor.deadline.at) continue
        const { then } = visitor.deadline
        visitor.deadline = undefined
        then()
      }
      admission.expire()
    },
    stop() {
      for (const socket of visitors.keys()) socket.destroy()
    },
  }
}

const admissionLimits = (settings: Settings): AdmissionLimits => ({
  total: settings.MQTT_MAX_CONNECTIONS,
  unauthenticated: settings.MQTT_MAX_UNAUTHENTICATED_PER_ADDRESS,
  waiting: settings.MQTT_MAX_WAITING_PER_ADDRESS,
  waitMs: settings.MQTT_ADMISSION_SECONDS * 1000,
})
