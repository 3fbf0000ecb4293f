import { createConnection } from 'node:net'
import { connect } from '../../mqtt-clauses/support/wire.ts'

/** A process of its own: so many logins a second with keys that nobody has, until it is killed. Prints what came of them. */
const [port, perSecond, from] = process.argv.slice(2) as [string, string, string]
const STEP_MS = 10
/** More than these at once would measure the attacker. */
const MAX_OPEN = 1500
const counts = { attempted: 0, refused: 0, closed: 0, open: 0 }
const started = performance.now()

const secret = (kind: string): string => `${kind}_${Math.random().toString(36).slice(2).padEnd(43, 'x')}`

function attempt(): void {
  counts.attempted++
  counts.open++
  const socket = createConnection({ port: Number(port), host: '127.0.0.1', localAddress: from })
  const name = `nobody-${counts.attempted % 100_000}`
  const isToken = counts.attempted % 2 === 0
  const [username, password] = isToken ? ['admin', secret('sbt')] : [name, secret('sbk')]
  socket.on('connect', () => socket.write(connect({ clientId: name, flags: 0xc2, rest: [username, password] })))
  socket.once('data', (answer) => {
    if (answer[3] === 4) counts.refused++
    socket.destroy()
  })
  socket.on('error', () => undefined)
  socket.on('close', () => {
    counts.open--
    counts.closed++
  })
}

setInterval(() => {
  const due = ((performance.now() - started) / 1000) * Number(perSecond)
  while (counts.attempted < due && counts.open < MAX_OPEN) attempt()
}, STEP_MS)
setInterval(() => process.send?.({ ...counts, seconds: (performance.now() - started) / 1000 }), 500)
