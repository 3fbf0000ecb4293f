import { createConnection, type Socket } from 'node:net'
import { attack } from './attack.ts'

/** A process of its own: so many requests a second with tokens that nobody has, over connections that are kept, until it is killed. */
const [port, perSecond, from] = process.argv.slice(2) as [string, string, string]
const CONNECTIONS = 64
const counts = { attempted: 0, refused: 0 }
/** Connections whose last answer is there. */
const idle: Socket[] = []

function connect(): void {
  const socket = createConnection({ port: Number(port), host: '127.0.0.1', localAddress: from, noDelay: true })
  socket.on('connect', () => idle.push(socket))
  socket.on('data', (answer) => {
    // What does not begin so is the rest of an answer.
    if (!/^HTTP\/1\.1 (401|429) /.test(answer.toString('latin1', 0, 13))) return
    counts.refused++
    idle.push(socket)
  })
  socket.on('error', () => undefined)
  socket.on('close', () => {
    const index = idle.indexOf(socket)
    if (index >= 0) idle.splice(index, 1)
    connect()
  })
}

function attempt(): void {
  const socket = idle.shift() as Socket
  const token = `sbt_${counts.attempted.toString(36).padStart(43, 'x')}`
  socket.write(`GET /api/clients HTTP/1.1\r\nhost: signalbox\r\nauthorization: Bearer ${token}\r\n\r\n`)
}

for (let count = 0; count < CONNECTIONS; count++) connect()
attack(Number(perSecond), counts, { canAttempt: () => idle.length > 0, attempt })
