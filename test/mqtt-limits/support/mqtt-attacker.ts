import { createConnection } from 'node:net'
import { connect } from '../../mqtt-clauses/support/wire.ts'
import { attack } from './attack.ts'

/** A process of its own: so many logins a second with keys that nobody has, until it is killed. */
const [port, perSecond, from] = process.argv.slice(2) as [string, string, string]
/** More than these at once would measure the attacker. */
const MAX_OPEN = 1500
const counts = { attempted: 0, refused: 0 }
let open = 0

const secret = (kind: string): string => `${kind}_${Math.random().toString(36).slice(2).padEnd(43, 'x')}`

function attempt(): void {
  open++
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
    open--
  })
}

attack(Number(perSecond), counts, { canAttempt: () => open < MAX_OPEN, attempt })
