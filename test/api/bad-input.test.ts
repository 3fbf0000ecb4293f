import { once } from 'node:events'
import { Agent, type IncomingMessage, request } from 'node:http'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startDevice } from '../support/device.ts'
import { ADMIN_TOKEN, startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { answerOf, expectProblem, stored } from './support.ts'

const NO_SUCH_COMMAND = '0198c0de-0000-7000-8000-000000000000'
const MAX_PAYLOAD_BYTES = 262_144

let server: TestServer
let commandId: string

beforeAll(async () => {
  server = await startServer()
  await server.api.post('/clients', { id: 'c1' })
  await server.api.post('/clients', { id: 'off' })
  await server.api.post('/clients/off/disable')
  commandId = (await server.api.post('/commands', { clientId: 'c1', action: 'print' })).body.id
})
afterAll(() => server.stop())

/** Sends, expects the refusal, and that nothing was stored. */
async function refused(
  request: { method?: string; path: string; body?: unknown; headers?: Record<string, string> },
  status: number,
  code: string,
  paths?: string[],
): Promise<void> {
  const before = await stored(server)
  const answer = await server.api.send(request.method ?? 'POST', request.path, request.body, request.headers)
  expectProblem(answer, status, code)
  if (code === 'INVALID_INPUT') {
    expect(answer.body.errors.length).toBeGreaterThan(0)
    for (const fault of answer.body.errors)
      expect(fault).toEqual({ path: expect.any(String), message: expect.any(String) })
  }
  if (paths) expect(new Set(answer.body.errors.map((fault: { path: string }) => fault.path))).toEqual(new Set(paths))
  expect(await stored(server)).toEqual(before)
}

const valid = { clientId: 'c1', action: 'print' }
const future = (seconds: number): string => new Date(Date.now() + seconds * 1000).toISOString()
const nested = (depth: number): string => `${'['.repeat(depth)}${']'.repeat(depth)}`
/** A command whose payload is given as JSON text, for what JSON.stringify would not write. */
const withPayload = (json: string): string => `{"clientId":"c1","action":"print","payload":${json}}`

describe('a body that is no command is INVALID_INPUT and names every fault', () => {
  const cases: [name: string, body: unknown, paths: string[]][] = [
    ['no body', undefined, ['clientId', 'action']],
    ['an empty body', '', ['clientId', 'action']],
    ['text that is not JSON', 'print this', ['body']],
    ['broken JSON', '{"clientId":"c1","action":', ['body']],
    ['two documents', '{"clientId":"c1","action":"print"}{}', ['body']],
    ['an array', [], ['body']],
    ['a number', '5', ['body']],
    ['a string', '"print"', ['body']],
    ['true', 'true', ['body']],
    ['null', 'null', ['body']],
    ['no fields', {}, ['clientId', 'action']],
    ['no action', { clientId: 'c1' }, ['action']],
    ['no target', { action: 'print' }, ['clientId']],
    ['a null target', { clientId: null, action: 'print' }, ['clientId']],
    [
      'wrong types everywhere',
      { clientId: 5, action: {}, priority: '5', ttlSeconds: 'x' },
      ['clientId', 'action', 'priority', 'ttlSeconds'],
    ],
    ['an unknown field', { ...valid, prioritty: 5 }, ['body']],
    ['an id with a wildcard', { clientId: '+', action: 'print' }, ['clientId']],
    ['an id with a slash', { clientId: 'a/b', action: 'print' }, ['clientId']],
    ['an id of 65 characters', { clientId: 'x'.repeat(65), action: 'print' }, ['clientId']],
    ['an action with a line break', { clientId: 'c1', action: 'print\n' }, ['action']],
    ['priority 0', { ...valid, priority: 0 }, ['priority']],
    ['priority 11', { ...valid, priority: 11 }, ['priority']],
    ['priority 1.5', { ...valid, priority: 1.5 }, ['priority']],
    ['priority "5"', { ...valid, priority: '5' }, ['priority']],
    ['priority null', { ...valid, priority: null }, ['priority']],
    ['ttlSeconds 0', { ...valid, ttlSeconds: 0 }, ['ttlSeconds']],
    ['ttlSeconds -1', { ...valid, ttlSeconds: -1 }, ['ttlSeconds']],
    ['ttlSeconds 0.5', { ...valid, ttlSeconds: 0.5 }, ['ttlSeconds']],
    ['ttlSeconds beyond ten years', { ...valid, ttlSeconds: 315_360_001 }, ['ttlSeconds']],
    [
      'timeouts of 0',
      { ...valid, startTimeoutSeconds: 0, timeoutSeconds: 0 },
      ['startTimeoutSeconds', 'timeoutSeconds'],
    ],
    ['maxRetries -1', { ...valid, maxRetries: -1 }, ['maxRetries']],
    ['maxRetries 101', { ...valid, maxRetries: 101 }, ['maxRetries']],
    ['expiresAt in the past', { ...valid, expiresAt: '2020-01-01T00:00:00Z' }, ['expiresAt']],
    ['expiresAt and ttlSeconds', { ...valid, expiresAt: future(60), ttlSeconds: 60 }, ['expiresAt']],
    ['expiresAt without a zone', { ...valid, expiresAt: '2099-01-01T00:00:00' }, ['expiresAt']],
    ['expiresAt that is no day', { ...valid, expiresAt: '2099-02-30T00:00:00Z' }, ['expiresAt']],
    ['expiresAt in the year 0', { ...valid, expiresAt: '0000-01-01T00:00:00Z' }, ['expiresAt']],
    ['expiresAt before the year 1', { ...valid, expiresAt: '0001-01-01T00:00:00+14:00' }, ['expiresAt']],
    ['expiresAt as a number', { ...valid, expiresAt: 4_102_444_800 }, ['expiresAt']],
    ['notBefore after expiresAt', { ...valid, notBefore: future(120), expiresAt: future(60) }, ['notBefore']],
    ['notBefore after ttlSeconds', { ...valid, notBefore: future(120), ttlSeconds: 60 }, ['notBefore']],
    ['notBefore in the year 0', { ...valid, notBefore: '0000-01-01T00:00:00Z' }, ['notBefore']],
  ]
  test.each(cases)('%s', async (_name, body, paths) => {
    await refused({ path: '/commands', body }, 400, 'INVALID_INPUT', paths)
  })
})

describe('a document that PostgreSQL or a device could not keep as it is is refused', () => {
  test.each([
    ['U+0000 in a value', withPayload('{"a":"x\\u0000"}')],
    ['U+0000 in a key', withPayload('{"x\\u0000":1}')],
    ['U+0000 in the middle of an array', withPayload('[1,["\\u0000"]]')],
    ['a lone high surrogate', withPayload('"\\ud800"')],
    ['a lone low surrogate in a key', withPayload('{"\\udc00":1}')],
    ['surrogates in the wrong order', withPayload('"\\udc00\\ud800"')],
    ['1e400', withPayload('1e400')],
    ['-1e400 inside', withPayload('{"a":[-1e400]}')],
    ['100 levels of arrays', withPayload(nested(100))],
    ['100 levels of objects', withPayload(`${'{"a":'.repeat(100)}1${'}'.repeat(100)}`)],
    ['100 000 levels', withPayload(nested(100_000))],
    ['U+0000 in the target', '{"clientId":"c1\\u0000","action":"print"}'],
    ['U+0000 in a field that nobody knows', '{"clientId":"c1","action":"print","x\\u0000":1}'],
  ])('%s', async (_name, body) => {
    await refused({ path: '/commands', body }, 400, 'INVALID_INPUT')
  })

  test('text that is not UTF-8', async () => {
    const before = await stored(server)
    const response = await fetch(`${server.http}/api/commands`, {
      method: 'POST',
      headers: { authorization: `Bearer ${ADMIN_TOKEN}`, 'content-type': 'application/json' },
      body: Buffer.concat([
        Buffer.from('{"clientId":"c1","action":"print","payload":"'),
        Buffer.from([0xff, 0xc3]),
        Buffer.from('"}'),
      ]),
    })
    expectProblem(await answerOf(response), 400, 'INVALID_INPUT')
    expect(await stored(server)).toEqual(before)
  })

  test('text in another encoding', async () => {
    const before = await stored(server)
    const response = await fetch(`${server.http}/api/commands`, {
      method: 'POST',
      headers: { authorization: `Bearer ${ADMIN_TOKEN}`, 'content-type': 'application/json; charset=utf-16le' },
      body: Buffer.from(JSON.stringify(valid), 'utf16le'),
    })
    expectProblem(await answerOf(response), 400, 'INVALID_INPUT')
    expect(await stored(server)).toEqual(before)
  })

  test('a body in an unknown content encoding', async () => {
    await refused(
      { path: '/commands', body: valid, headers: { 'content-encoding': 'bogus' } },
      415,
      'UNSUPPORTED_MEDIA_TYPE',
    )
  })

  test('a body that says it is compressed and is not', async () => {
    await refused(
      { path: '/commands', body: valid, headers: { 'content-encoding': 'gzip' } },
      415,
      'UNSUPPORTED_MEDIA_TYPE',
    )
  })

  test.each([
    ['U+0000', '{"id":"c2","name":"a\\u0000b"}'],
    ['a lone surrogate', '{"id":"c2","name":"a\\ud800b"}'],
  ])('%s in the name of a client', async (_name, body) => {
    await refused({ path: '/clients', body }, 400, 'INVALID_INPUT')
    await refused({ method: 'PATCH', path: '/clients/c1', body: body.replace('"id":"c2",', '') }, 400, 'INVALID_INPUT')
  })

  test('U+0000 in metadata, in a reason and in an action', async () => {
    await refused({ path: '/clients', body: '{"id":"c2","metadata":{"a\\u0000":1}}' }, 400, 'INVALID_INPUT')
    await refused({ path: `/commands/${commandId}/cancel`, body: '{"reason":"\\u0000"}' }, 400, 'INVALID_INPUT')
    await refused({ method: 'PUT', path: '/actions/a', body: '{"description":"\\u0000"}' }, 400, 'INVALID_INPUT')
  })
})

describe('what looks odd and is fine is stored as it was sent', () => {
  test.each([
    ['64 levels are not too deep', nested(64)],
    ['a pair of surrogates', '"\\ud83d\\ude00"'],
    ['keys named like members of every object', '{"constructor":{"a":1},"toString":1,"hasOwnProperty":2}'],
    ['numbers as keys in the order sent', '{"b":1,"a":2}'],
    ['control characters other than U+0000', '"\\u0001\\u001f\\u007f"'],
    ['false', 'false'],
    ['0', '0'],
    ['an empty text', '""'],
    ['U+FFFD that the caller sent', '"\ufffd"'],
    ['null inside', '{"a":null}'],
  ])('%s', async (_name, json) => {
    const created = await server.api.post('/commands', withPayload(json))
    expect(created.status).toBe(201)
    const read = await server.api.get(`/commands/${created.body.id}`)
    expect(JSON.stringify(read.body.payload)).toBe(JSON.stringify(JSON.parse(json)))
    expect(JSON.stringify(created.body.payload)).toBe(JSON.stringify(JSON.parse(json)))
  })

  test('keys with escapes, whatever keys came before them', async () => {
    // JSON.parse of Node.js 24.21 takes the second for the first, once it has seen that, and the fourth for the third.
    for (const key of ['\\\\', '\\"', '\\\\n', '\\n']) {
      const json = `{"size of the label":0,"${key}":1}`
      const created = await server.api.post('/commands', withPayload(json))
      const [stored] = await server.sql<{ payload: string }>('select payload::text from commands where id = $1', [
        created.body.id,
      ])
      expect(stored?.payload).toBe(json)
    }
  })

  test('__proto__ in a payload never reaches a prototype: it is refused', async () => {
    await refused({ path: '/commands', body: withPayload('{"__proto__":{"polluted":true}}') }, 400, 'INVALID_INPUT')
    await refused(
      { path: '/commands', body: withPayload('[{"a":{"\\u005f_proto__":{"polluted":true}}}]') },
      400,
      'INVALID_INPUT',
    )
    await refused(
      { path: '/clients', body: '{"id":"c2","metadata":{"__proto__":{"polluted":true}}}' },
      400,
      'INVALID_INPUT',
    )
    await refused({ path: '/commands', body: '{"__proto__":{"clientId":"c1","action":"print"}}' }, 400, 'INVALID_INPUT')
    expect(({} as Record<string, unknown>).polluted).toBeUndefined()
  })

  test('a byte order mark is skipped', async () => {
    const created = await server.api.post('/commands', `\ufeff${JSON.stringify(valid)}`)
    expect(created.status).toBe(201)
  })

  test('a content type that is not JSON does not matter: the body does', async () => {
    const created = await server.api.post('/commands', valid, { 'content-type': 'text/plain' })
    expect(created.status).toBe(201)
  })

  test('an expiry with any offset from UTC is the same instant', async () => {
    const instant = Date.parse('2099-01-01T00:00:00Z')
    for (const offset of ['+02:00', '-11:30', '+23:00', '-23:59']) {
      const sign = offset.startsWith('-') ? -1 : 1
      const minutes = sign * (Number(offset.slice(1, 3)) * 60 + Number(offset.slice(4)))
      const local = new Date(instant + minutes * 60_000).toISOString().replace('Z', offset)
      const created = await server.api.post('/commands', { ...valid, expiresAt: local })
      expect(created).toMatchObject({ status: 201, body: { expiresAt: '2099-01-01T00:00:00.000Z' } })
    }
  })

  test('the last day of the year 9999 is an expiry', async () => {
    const created = await server.api.post('/commands', { ...valid, expiresAt: '9999-12-31T23:59:59Z' })
    expect(created).toMatchObject({ status: 201, body: { expiresAt: '9999-12-31T23:59:59.000Z' } })
    await refused(
      { path: '/commands', body: { ...valid, expiresAt: '9999-12-31T23:59:59-01:00' } },
      400,
      'INVALID_INPUT',
      ['expiresAt'],
    )
  })
})

describe('a target that cannot take it', () => {
  test('an unknown client is NOT_FOUND', () =>
    refused({ path: '/commands', body: { ...valid, clientId: 'nobody' } }, 404, 'NOT_FOUND'))
  test('a disabled client is CLIENT_DISABLED', () =>
    refused({ path: '/commands', body: { ...valid, clientId: 'off' } }, 403, 'CLIENT_DISABLED'))
  test('a refusal with an Idempotency-Key stores no key', async () => {
    const headers = { 'Idempotency-Key': 'refused-1' }
    await refused({ path: '/commands', body: { ...valid, clientId: 'nobody' }, headers }, 404, 'NOT_FOUND')
    await refused({ path: '/commands', body: { ...valid, clientId: 'off' }, headers }, 403, 'CLIENT_DISABLED')
    await refused(
      { path: '/commands', body: { ...valid, expiresAt: '2020-01-01T00:00:00Z' }, headers },
      400,
      'INVALID_INPUT',
    )
  })
})

describe('sizes', () => {
  const text = (bytes: number): string => 'x'.repeat(bytes - 2)

  test('a payload of 300 KiB is PAYLOAD_TOO_LARGE', () =>
    refused({ path: '/commands', body: { ...valid, payload: text(300 * 1024) } }, 413, 'PAYLOAD_TOO_LARGE'))
  test('one byte over the limit is PAYLOAD_TOO_LARGE', () =>
    refused({ path: '/commands', body: { ...valid, payload: text(MAX_PAYLOAD_BYTES + 1) } }, 413, 'PAYLOAD_TOO_LARGE'))
  test('bytes count, not characters', () =>
    refused(
      { path: '/commands', body: { ...valid, payload: 'ü'.repeat(MAX_PAYLOAD_BYTES / 2) } },
      413,
      'PAYLOAD_TOO_LARGE',
    ))
  test('a payload of exactly the limit is accepted, and its client gets it whole', async () => {
    const device = await startDevice(server, 'big')
    const payload = text(MAX_PAYLOAD_BYTES)
    const created = await server.api.post('/commands', { clientId: 'big', action: 'print', payload })
    expect(created.status).toBe(201)
    const { messageId, payload: command } = await device.nextCommand()
    expect(command.payload).toBe(payload)
    device.ack(messageId)
    await device.end()
    await until(async () => (await server.api.get('/clients/big')).body.presence === 'offline', 'offline')
  })
  test('a body over HTTP_MAX_BODY_BYTES is PAYLOAD_TOO_LARGE', () =>
    refused({ path: '/commands', body: { ...valid, payload: 'x'.repeat(1_100_000) } }, 413, 'PAYLOAD_TOO_LARGE'))
  test('blanks around a small command count too', () =>
    refused({ path: '/commands', body: `${' '.repeat(1_100_000)}${JSON.stringify(valid)}` }, 413, 'PAYLOAD_TOO_LARGE'))
  test('a body of no announced length over HTTP_MAX_BODY_BYTES is PAYLOAD_TOO_LARGE, and its connection goes on', async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    const send = (path: string, method: string, chunks: string[]): Promise<IncomingMessage> =>
      new Promise((resolve, reject) => {
        const headers = { authorization: `Bearer ${ADMIN_TOKEN}`, 'transfer-encoding': 'chunked' }
        const outgoing = request(`${server.http}/api${path}`, { method, agent, headers }, resolve).on('error', reject)
        for (const chunk of chunks) outgoing.write(chunk)
        outgoing.end()
      })
    const large = await send('/commands', 'POST', Array(40).fill(' '.repeat(100_000)))
    expect(large.statusCode).toBe(413)
    const { socket } = large
    large.resume()
    await once(large, 'end')
    const next = await send('/clients/c1/enable', 'POST', [])
    expect(next.statusCode).toBe(200)
    expect(next.socket).toBe(socket)
    next.resume()
    agent.destroy()
  })
  test('metadata is limited in bytes', () =>
    refused({ path: '/clients', body: { id: 'c2', metadata: { a: 'ü'.repeat(10_000) } } }, 400, 'INVALID_INPUT', [
      'metadata',
    ]))
})

describe('a bad Idempotency-Key is INVALID_INPUT', () => {
  test.each([
    ['empty', ''],
    ['with a blank', 'a b'],
    ['of 256 characters', 'k'.repeat(256)],
    ['beyond ASCII', 'sch\u00fcssel'],
  ])('%s', (_name, key) =>
    refused({ path: '/commands', body: valid, headers: { 'Idempotency-Key': key } }, 400, 'INVALID_INPUT', [
      'Idempotency-Key',
    ]),
  )
})

describe('what is not there is NOT_FOUND', () => {
  const missing: [method: string, path: string, body?: unknown][] = [
    ...['not-a-uuid', '123', '%00', '%E0%A4%A', `${NO_SUCH_COMMAND}0`, NO_SUCH_COMMAND].flatMap(
      (id): [string, string, unknown?][] => [
        ['GET', `/commands/${id}`],
        ['GET', `/commands/${id}?wait=5`],
        ['GET', `/commands/${id}/executions`],
        ['GET', `/commands/${id}/timeline`],
        ['GET', `/commands/${id}/explain`],
        ['POST', `/commands/${id}/cancel`, {}],
      ],
    ),
    ...['nobody', '%2e%2e%2f', 'a%00b', '-x', 'x'.repeat(65), '%F0%9F%98%80'].flatMap(
      (id): [string, string, unknown?][] => [
        ['GET', `/clients/${id}`],
        ['PATCH', `/clients/${id}`, { name: 'x' }],
        ['DELETE', `/clients/${id}`],
        ['POST', `/clients/${id}/rotate-key`],
        ['POST', `/clients/${id}/disable`],
        ['POST', `/clients/${id}/enable`],
        ['GET', `/clients/${id}/queue`],
        ['GET', `/actions/${id}`],
        ['DELETE', `/actions/${id}`],
      ],
    ),
    ['PUT', '/actions/no%20name', {}],
    ['GET', '/'],
    ['GET', '/nothing'],
    ['POST', '/commands/'.concat('x/y/z/0')],
    ['GET', '/__proto__'],
    ['GET', '/constructor'],
    ['DELETE', '/api'],
  ]
  test.each(missing)('%s %s', (method, path, body) => refused({ method, path, body }, 404, 'NOT_FOUND'))

  test.each([
    ['GET', '/'],
    ['GET', '/favicon.ico'],
    ['POST', '/health'],
    ['GET', '/health/nothing'],
    ['GET', '/commands'],
  ])('outside /api: %s %s', async (method, path) => {
    const response = await fetch(`${server.http}${path}`, { method })
    expectProblem(await answerOf(response), 404, 'NOT_FOUND')
  })

  test.each([
    ['DELETE', '/commands', 'HEAD, GET, POST'],
    ['PUT', '/clients/c1', 'HEAD, GET, PATCH, DELETE'],
    ['GET', '/clients/c1/disable', 'POST'],
    ['POST', '/actions/a', 'HEAD, GET, PUT, DELETE'],
    ['PROPFIND', '/commands', 'HEAD, GET, POST'],
  ])('%s %s, and Allow says what is', async (method, path, allowed) => {
    const before = await stored(server)
    const answer = await server.api.send(method, path)
    expectProblem(answer, 404, 'NOT_FOUND')
    const words = (text: string | null): string[] => (text ?? '').split(/, */).sort()
    expect(words(answer.headers.get('allow'))).toEqual(words(allowed))
    expect(await stored(server)).toEqual(before)
  })
})

describe('a bad query is INVALID_INPUT', () => {
  const base64 = (text: string): string => Buffer.from(text).toString('base64url')
  const lists = (): string[] => [
    '/commands',
    '/clients',
    '/actions',
    `/commands/${commandId}/executions`,
    `/commands/${commandId}/timeline`,
  ]

  test.each(['0', '201', '-1', 'x', '1.5', '', 'NaN', 'Infinity', '1&limit=2'])('limit=%s', async (limit) => {
    for (const path of lists()) await refused({ method: 'GET', path: `${path}?limit=${limit}` }, 400, 'INVALID_INPUT')
  })

  test.each([
    '',
    'x',
    '!!!',
    '%00',
    base64("' or 1=1 --"),
    base64('a\u0000b'),
    Buffer.from([0xff, 0xfe]).toString('base64url'),
    base64('x'.repeat(400)),
    'YQ&cursor=YQ',
  ])('cursor=%s', async (cursor) => {
    for (const path of lists()) {
      // "x" decodes to nothing, and nothing is no cursor of any list.
      await refused({ method: 'GET', path: `${path}?cursor=${cursor}` }, 400, 'INVALID_INPUT')
    }
  })

  test.each(['61', '-1', 'x', 'NaN', 'Infinity', '1&wait=1', '', '%20', '0x10', '1e1'])('wait=%s', async (wait) => {
    await refused({ path: `/commands?wait=${wait}`, body: valid }, 400, 'INVALID_INPUT', ['wait'])
    await refused({ method: 'GET', path: `/commands/${commandId}?wait=${wait}` }, 400, 'INVALID_INPUT', ['wait'])
  })

  test.each([
    ['/commands?status=done', 'status'],
    ['/commands?clientId=a/b', 'clientId'],
    ['/commands?action=%00', 'action'],
    ['/commands?createdAfter=yesterday', 'createdAfter'],
    ['/commands?createdAfter=0000-01-01T00:00:00Z', 'createdAfter'],
    ['/commands?createdBefore=0001-01-01T00:00:00%2B14:00', 'createdBefore'],
    ['/clients?zone=%2B', 'zone'],
    ['/clients?presence=away', 'presence'],
    ['/clients?disabled=maybe', 'disabled'],
    ['/clients?q=', 'q'],
    ['/clients?q=%00', 'q'],
    [`/clients?q=${'x'.repeat(201)}`, 'q'],
  ])('%s', (path, field) => refused({ method: 'GET', path }, 400, 'INVALID_INPUT', [field]))

  test('executions?status and timeline?clientId', async () => {
    await refused({ method: 'GET', path: `/commands/${commandId}/executions?status=x` }, 400, 'INVALID_INPUT', [
      'status',
    ])
    await refused({ method: 'GET', path: `/commands/${commandId}/timeline?clientId=%00` }, 400, 'INVALID_INPUT', [
      'clientId',
    ])
    const cursor = base64('9'.repeat(16))
    await refused({ method: 'GET', path: `/commands/${commandId}/timeline?cursor=${cursor}` }, 400, 'INVALID_INPUT', [
      'cursor',
    ])
  })
})

describe('a bad client or cancel is INVALID_INPUT', () => {
  test.each([
    [{}, ['id']],
    [{ id: '' }, ['id']],
    [{ id: 'a b' }, ['id']],
    [{ id: 'a~b' }, ['id']],
    [{ id: 5 }, ['id']],
    [{ id: 'c2', zones: 'A' }, ['zones']],
    [{ id: 'c2', zones: ['A', '#'] }, ['zones.1']],
    [{ id: 'c2', zones: Array.from({ length: 101 }, (_, index) => `z${index}`) }, ['zones']],
    [{ id: 'c2', maxInFlight: 0 }, ['maxInFlight']],
    [{ id: 'c2', maxInFlight: 1001 }, ['maxInFlight']],
    [{ id: 'c2', metadata: [] }, ['metadata']],
    [{ id: 'c2', name: '' }, ['name']],
    [{ id: 'c2', name: 'x'.repeat(201) }, ['name']],
    [{ id: 'c2', clientKey: 'sbk_mine' }, ['body']],
  ])('POST /clients %j', (body, paths) => refused({ path: '/clients', body }, 400, 'INVALID_INPUT', paths))

  test.each([
    [{}, ['body']],
    [{ id: 'c2' }, ['body']],
    [{ disabled: true }, ['body']],
    [{ zones: [5] }, ['zones.0']],
    [{ name: null }, ['name']],
  ])('PATCH /clients/c1 %j', (body, paths) =>
    refused({ method: 'PATCH', path: '/clients/c1', body }, 400, 'INVALID_INPUT', paths),
  )

  test.each([
    [{ reason: 5 }, ['reason']],
    [{ reason: 'x'.repeat(1001) }, ['reason']],
    [{ clientIds: [] }, ['clientIds']],
    [{ clientIds: ['#'] }, ['clientIds.0']],
    [{ why: 'typo' }, ['body']],
    ['[]', ['body']],
  ])('POST /commands/{id}/cancel %j', (body, paths) =>
    refused({ path: `/commands/${commandId}/cancel`, body }, 400, 'INVALID_INPUT', paths),
  )
})

test('a cancel needs no body', async () => {
  const { body } = await server.api.post('/commands', valid)
  expect(await server.api.post(`/commands/${body.id}/cancel`)).toMatchObject({ status: 200, body: { cancelled: 1 } })
})

test('a request id that the caller gives is kept if it is one', async () => {
  const kept = await server.api.send('GET', '/clients/c1', undefined, { 'X-Request-Id': 'trace-7' })
  expect(kept.headers.get('x-request-id')).toBe('trace-7')
  const made = await server.api.send('GET', '/clients/c1', undefined, { 'X-Request-Id': 'no good' })
  expect(made.headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/)
})

test('after all of this, nothing was an error of the server', () => {
  expect(server.logs.filter((line) => (line.level as number) >= 50)).toEqual([])
})
