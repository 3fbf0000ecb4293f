import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { type BuiltinOptions, builtinHandlers } from '../../agent/builtin-handlers.ts'
import { AbortedError, runHandler } from '../../agent/handlers.ts'
import type { Json } from '../../schemas/json.ts'
import { command, temporaryDirectory } from './support/fixtures.ts'

function run(options: BuiltinOptions, action: 'status' | 'message' | 'screenshot' | 'shutdown', payload?: Json) {
  const signal = new AbortController().signal
  return runHandler(builtinHandlers(options)[action], command(1, { action, payload }), signal, () => undefined)
}

/** A program that is certainly installed: this Node, running a line of JavaScript with the rest as its arguments. */
const node = (script: string, ...args: string[]) => ({ command: process.execPath, args: ['-e', script, ...args] })
const PNG = '89504e470d0a1a0a'
const writePng = (bytes: number) =>
  node(
    `fs.writeFileSync(process.argv[1], Buffer.concat([Buffer.from('${PNG}', 'hex'), Buffer.alloc(${bytes})]))`,
    '{file}',
  )

test('by default only status and message are allowed', async () => {
  expect(await run({}, 'shutdown')).toMatchObject({ status: 'rejected', error: { code: 'ACTION_NOT_ALLOWED' } })
  expect(await run({}, 'screenshot')).toMatchObject({ status: 'rejected', error: { code: 'ACTION_NOT_ALLOWED' } })
  expect(await run({ version: '1.2.3' }, 'status')).toMatchObject({
    status: 'completed',
    result: { agentVersion: '1.2.3', platform: process.platform, uptimeSeconds: expect.any(Number) },
  })
  expect(await run({ allow: [] }, 'status')).toMatchObject({ status: 'rejected' })
})

test('an allow-list with an action that does not exist is an error', () => {
  expect(() => builtinHandlers({ allow: ['status', 'shutdwon'] })).toThrow('shutdwon')
})

test('message shows the text, and rejects a payload without one', async () => {
  const shown: object[] = []
  const show = (message: object) => void shown.push(message)
  expect(await run({ show }, 'message', { title: 'Belt 3', text: 'Stop' })).toMatchObject({ status: 'completed' })
  expect(await run({ show }, 'message', { title: 'Belt 3' })).toMatchObject({
    status: 'rejected',
    error: { code: 'INVALID_PAYLOAD' },
  })
  expect(shown).toEqual([{ title: 'Belt 3', text: 'Stop' }])
})

test('screenshot returns the picture that the program wrote', async () => {
  const outcome = await run({ allow: ['screenshot'], screenshot: writePng(2) }, 'screenshot')
  const base64 = Buffer.from(`${PNG}0000`, 'hex').toString('base64')
  expect(outcome).toEqual({ status: 'completed', result: { contentType: 'image/png', bytes: 10, base64 } })
})

test.each([
  ['no program', { command: '/no/such/program', args: ['{file}'] }, 'rejected', 'NO_SCREENSHOT_TOOL'],
  ['a program that fails', node('console.error("no display"); process.exit(3)'), 'failed', 'SCREENSHOT_FAILED'],
  [
    'something that is no PNG',
    node('fs.writeFileSync(process.argv[1], "GIF89a")', '{file}'),
    'failed',
    'SCREENSHOT_FAILED',
  ],
  ['a picture that does not fit', writePng(200_000), 'failed', 'SCREENSHOT_TOO_LARGE'],
])('screenshot with %s', async (_, screenshot, status, code) => {
  expect(await run({ allow: ['screenshot'], screenshot }, 'screenshot')).toMatchObject({ status, error: { code } })
})

test('the largest picture that is let through fits in a report', async () => {
  const outcome = await run({ allow: ['screenshot'], screenshot: writePng(152_832 - 8) }, 'screenshot')
  expect(outcome).toMatchObject({ status: 'completed', result: { bytes: 152_832 } })
})

test('shutdown runs its program without a shell', async () => {
  using directory = temporaryDirectory()
  const file = directory.file('args')
  const script = 'fs.writeFileSync(process.argv[1], process.argv[2])'
  const shutdown = node(script, file, '$(id); echo "x"')
  expect(await run({ allow: ['shutdown'], shutdown }, 'shutdown')).toEqual({
    status: 'completed',
    result: { scheduled: true },
  })
  expect(readFileSync(file, 'utf8')).toBe('$(id); echo "x"')
  const broken = node('console.error("not permitted"); process.exit(1)')
  expect(await run({ allow: ['shutdown'], shutdown: broken }, 'shutdown')).toMatchObject({
    status: 'failed',
    error: { code: 'SHUTDOWN_FAILED', message: expect.stringContaining('not permitted') },
  })
})

test('a cancel ends the program', async () => {
  const shutdown = node('setInterval(() => {}, 1000)')
  const controller = new AbortController()
  const handler = builtinHandlers({ allow: ['shutdown'], shutdown }).shutdown
  const ended = runHandler(handler, command(1, { action: 'shutdown' }), controller.signal, () => undefined)
  controller.abort(new AbortedError('cancel', 'wait'))
  expect(await ended).toMatchObject({ status: 'cancelled', error: { message: 'wait' } })
})
