import { expect, test } from 'vitest'
import { AbortedError, type Handler, MAX_RESULT_BYTES, RejectedError, runHandler } from '../../agent/handlers.ts'
import { Report } from '../../schemas/messages.ts'
import { command } from './support/fixtures.ts'

function run(handler: Handler, signal = new AbortController().signal, onProgress: (value: object) => void = () => {}) {
  return runHandler(handler, command(1), signal, onProgress)
}

const returning = (value: unknown) => run((() => value) as Handler)
const throwing = (value: unknown) =>
  run(() => {
    throw value
  })

function aborted(cause: 'cancel' | 'stop'): AbortSignal {
  const controller = new AbortController()
  controller.abort(new AbortedError(cause, 'why'))
  return controller.signal
}

const circular: Record<string, unknown> = {}
circular.self = circular
let deep: unknown = 1
for (let level = 0; level < 70; level++) deep = [deep]

test.each([
  ['nothing', undefined, { status: 'completed' }],
  ['null', null, { status: 'completed', result: null }],
  ['a document', { a: [1, 'b'] }, { status: 'completed', result: { a: [1, 'b'] } }],
  ['a date', new Date(0), { status: 'completed', result: '1970-01-01T00:00:00.000Z' }],
  ['the largest text', 'x'.repeat(MAX_RESULT_BYTES - 2), { status: 'completed' }],
])('a handler that returns %s has completed', async (_, value, outcome) => {
  expect(await returning(value)).toMatchObject(outcome)
})

test.each([
  ['a text that is too large', 'x'.repeat(MAX_RESULT_BYTES - 1), 'RESULT_TOO_LARGE'],
  ['too many bytes', '한'.repeat(MAX_RESULT_BYTES / 3 + 1), 'RESULT_TOO_LARGE'],
  ['a function', () => 1, 'RESULT_NOT_JSON'],
  ['a bigint', 1n, 'RESULT_NOT_JSON'],
  ['a circle', circular, 'RESULT_NOT_JSON'],
  ['NaN', { a: Number.NaN }, 'RESULT_NOT_JSON'],
  ['U+0000', 'a\u0000b', 'RESULT_NOT_JSON'],
  ['half a surrogate pair', { a: '\ud800' }, 'RESULT_NOT_JSON'],
  ['a document that is too deep', deep, 'RESULT_NOT_JSON'],
])('a handler that returns %s has completed all the same, and says what is missing', async (_, value, code) => {
  const message = expect.stringContaining('was carried out')
  expect(await returning(value)).toMatchObject({ status: 'completed', error: { code, message } })
})

test.each([
  ['RejectedError', new RejectedError('NO_PAPER', 'no paper'), 'rejected', 'NO_PAPER'],
  ['an error with a code', Object.assign(new Error('x'), { code: 'EIO' }), 'failed', 'EIO'],
  ['an error with a numeric code', Object.assign(new Error('x'), { code: 5 }), 'failed', 'HANDLER_ERROR'],
  ['an error', new Error('x'), 'failed', 'HANDLER_ERROR'],
  ['a string', 'x', 'failed', 'HANDLER_ERROR'],
  ['an AbortError of its own', new DOMException('x', 'AbortError'), 'failed', 'HANDLER_ERROR'],
])('a handler that throws %s', async (_, thrown, status, code) => {
  expect(await throwing(thrown)).toMatchObject({ status, error: { code } })
})

test('what an error says can be sent and stored, whatever it is', async () => {
  const error = Object.assign(new Error(`\u0000\ud800${'x'.repeat(20_000)}`), { code: `\u0000${'C'.repeat(300)}` })
  const outcome = await throwing(error)
  expect(Report.safeParse(outcome).error).toBeUndefined()
  expect(JSON.stringify(outcome)).not.toMatch(/\\u0000|\\ud800/)
})

test.each([
  ['cancelled: throws the reason', 'cancel', (signal: AbortSignal) => signal.reason, 'cancelled', 'CANCELLED'],
  ['cancelled: throws an AbortError', 'cancel', () => new DOMException('x', 'AbortError'), 'cancelled', 'CANCELLED'],
  ['cancelled: wraps it', 'cancel', (s: AbortSignal) => new Error('x', { cause: s.reason }), 'cancelled', 'CANCELLED'],
  ['cancelled: throws another error', 'cancel', () => new Error('x'), 'failed', 'HANDLER_ERROR'],
  ['stopped: throws the reason', 'stop', (signal: AbortSignal) => signal.reason, 'failed', 'AGENT_STOPPED'],
] as const)('%s', async (_, cause, thrown, status, code) => {
  const outcome = await run(({ signal }) => {
    throw thrown(signal)
  }, aborted(cause))
  expect(outcome).toMatchObject({ status, error: { code } })
})

test('a cancelled handler that completes anyway has completed', async () => {
  expect(await run(() => 'done', aborted('cancel'))).toEqual({ status: 'completed', result: 'done' })
})

test('progress that could not be stored is left out or made such that it can', async () => {
  const seen: object[] = []
  await run(
    ({ progress }) => {
      progress({ done: Number.NaN })
      progress({ done: 1, message: 'a\u0000b' })
    },
    undefined,
    (value) => seen.push(value),
  )
  expect(seen).toEqual([{ done: 1, message: 'a\ufffdb' }])
})
