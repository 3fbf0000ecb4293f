import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createConnection, createServer } from 'node:net'
import { until } from './until.ts'

/** Debian's redis-server, keeping nothing on disk: what it forgets, it forgets for good. */
export interface TestRedis {
  url: string
  port: number
  /** SIGKILL. */
  kill(): Promise<void>
  /** Empty, on the same port. */
  restart(): Promise<void>
  /** SIGSTOP: it keeps its connections and does nothing. */
  freeze(): void
  thaw(): void
  stop(): Promise<void>
}

async function freePort(): Promise<number> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  return port
}

export async function startRedis(): Promise<TestRedis> {
  const port = await freePort()
  let child: ChildProcess

  const answers = (): Promise<boolean> =>
    new Promise((resolve) => {
      const socket = createConnection({ port, host: '127.0.0.1' }, () => socket.write('PING\r\n'))
      socket.once('data', (bytes) => {
        socket.destroy()
        resolve(bytes.toString().startsWith('+PONG'))
      })
      socket.once('error', () => resolve(false))
    })

  async function start(): Promise<void> {
    const options = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', '/tmp']
    child = spawn('redis-server', options, { stdio: 'ignore' })
    await until(answers, 'Redis')
  }

  async function kill(): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return
    const gone = once(child, 'exit')
    child.kill('SIGKILL')
    await gone
  }

  await start()
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    kill,
    restart: start,
    freeze: () => void child.kill('SIGSTOP'),
    thaw: () => void child.kill('SIGCONT'),
    stop: kill,
  }
}
