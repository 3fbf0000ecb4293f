import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, onTestFinished, test, vi } from 'vitest'
import { parseEventStream } from '../../cli/event-stream.ts'
import { ADMIN_TOKEN, startServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { fleetOf } from './support/fleet.ts'
import { cliFor, start } from './support/run.ts'

// Each test starts processes; on a busy machine that takes its time.
vi.setConfig({ testTimeout: 90_000 })

interface Asked {
  url: string
  lastEventId: string | undefined
  answer: ServerResponse
}

/** A server whose streams the test writes itself, byte by byte. */
async function scriptedServer() {
  const asked: Asked[] = []
  const server = createServer((request: IncomingMessage, answer) => {
    const lastEventId = request.headers['last-event-id'] as string | undefined
    answer.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders()
    asked.push({ url: request.url as string, lastEventId, answer })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  const env = {
    SIGNALBOX_URL: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    SIGNALBOX_TOKEN: ADMIN_TOKEN,
  }
  return { asked, env }
}

const ID = '01980000-0000-7000-8000-000000000000'
const event = (id: string, type: string, more: object = {}): string =>
  `id: ${id}\nevent: ${type}\ndata: ${JSON.stringify({ id, type, at: '2026-01-01T00:00:00.000Z', data: {}, ...more })}\n\n`

test('watch prints events, and goes on after a lost connection with the last id', async () => {
  const { asked, env } = await scriptedServer()
  const watching = start(['watch', '--types', 'client.online,client.offline', '--zone', 'A'], { env })
  const first = await until(() => asked[0], 'the first connection')
  expect(first.url).toBe('/api/events?types=client.online%2Cclient.offline&zone=A')
  expect(first.lastEventId).toBeUndefined()
  first.answer.write(event('7-1', 'client.online', { clientId: 'a1' }))
  await until(() => watching.output.stdout.includes('client.online'), 'the first event')
  first.answer.destroy()
  const second = await until(() => asked[1], 'the second connection')
  expect(second.lastEventId).toBe('7-1')
  second.answer.write(event('7-2', 'client.offline', { clientId: 'a\u001b1' }))
  await until(() => watching.output.stdout.includes('client.offline'), 'the second event')
  watching.process.kill('SIGINT')
  const { code, stdout, stderr } = await watching.ended
  expect(code).toBe(0)
  expect(stdout).toBe(
    '2026-01-01T00:00:00.000Z  client.online              a1\n' +
      '2026-01-01T00:00:00.000Z  client.offline             a\\u001b1\n',
  )
  expect(stderr).toContain('connecting again')
})

test('watching a command ends when it is settled, with its outcome as exit code', async () => {
  for (const [status, code] of [
    ['completed', 0],
    ['failed', 1],
  ] as const) {
    const { asked, env } = await scriptedServer()
    const watching = start(['watch', ID, '--json'], { env })
    const { url, answer } = await until(() => asked[0], 'the connection')
    expect(url).toBe(`/api/commands/${ID}/stream`)
    const settled = { id: ID, status, counts: { [status]: 1 }, total: 1 }
    answer.end(`${event('1-1', `execution.${status}`)}event: settled\ndata: ${JSON.stringify(settled)}\n\n`)
    const ended = await watching.ended
    expect(ended.code).toBe(code)
    const lines = ended.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(lines).toMatchObject([{ type: `execution.${status}` }, settled])
  }
})

test('a stream is parsed as the standard says, however its bytes are cut', async () => {
  const text = ': hello\nid: 1\nevent: a\ndata: {"x":\ndata: "ü"}\n\nid\ndata\r\n\r\nretry: 5\n\ndata: last'
  const bytes = new TextEncoder().encode(text)
  for (const size of [1, 2, 3, 7, 1000]) {
    const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, n) =>
      bytes.subarray(n * size, (n + 1) * size),
    )
    const events = await Array.fromAsync(parseEventStream(chunks))
    expect(events).toEqual([
      { id: '1', type: 'a', data: '{"x":\n"ü"}' },
      { id: '', type: 'message', data: '' },
    ])
  }
})

test('against the server: everything of a zone, and one command to its end', async () => {
  const server = await startServer()
  onTestFinished(() => server.stop())
  const cli = cliFor(server)
  const release = Promise.withResolvers<void>()
  await using fleet = fleetOf(server, { hold: () => release.promise })
  await Promise.all([fleet.add('v1', ['V']), fleet.add('o1', ['O'])])
  const watching = start(['watch', '--zone', 'V', '--types', 'execution.running,execution.completed', '--json'], {
    env: cli.env,
  })
  await until(() => watching.output.stderr.includes('watching'), 'the stream')
  const { id } = await cli.json('send --broadcast --action hold')
  const following = start(['watch', id], { env: cli.env })
  await until(() => following.output.stdout.includes('execution.running'), 'the first events')
  release.resolve()
  const followed = await following.ended
  expect(followed).toMatchObject({ code: 0, stderr: `watching ${id}\n` })
  expect(followed.stdout).toMatch(/^executions +2: completed 2$/m)
  await until(() => watching.output.stdout.includes('execution.completed'), 'the event of the zone')
  watching.process.kill('SIGINT')
  const { code, stdout } = await watching.ended
  expect(code).toBe(0)
  const events = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  expect(events).toMatchObject([
    { type: 'execution.running', clientId: 'v1', commandId: id },
    { type: 'execution.completed', clientId: 'v1', commandId: id },
  ])
  const unknown = await cli('watch 01980000-0000-7000-8000-000000000000')
  expect(unknown).toMatchObject({ code: 3, stderr: expect.stringContaining('NOT_FOUND') })
})
