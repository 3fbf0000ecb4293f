import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startServer, type TestServer } from '../support/server.ts'
import { expectProblem, stored } from './support.ts'

let server: TestServer

beforeAll(async () => {
  server = await startServer()
  await server.api.post('/clients', { id: 'c1' })
})
afterAll(() => server.stop())

const put = (name: string, body: unknown) => server.api.send('PUT', `/actions/${name}`, body)
const send = (action: string, more: Record<string, unknown> = {}) =>
  server.api.post('/commands', { clientId: 'c1', action, ...more })
const paths = (answer: { body: { errors: { path: string }[] } }): string[] => answer.body.errors.map(({ path }) => path)

test('an action is put, read, listed, replaced and deleted', async () => {
  const full = {
    payloadSchema: { type: 'object', properties: { copies: { type: 'integer' } } },
    delivery: 'at_least_once',
    startTimeoutSeconds: 10,
    timeoutSeconds: 20,
    ttlSeconds: 30,
    maxRetries: 4,
    priority: 7,
    description: 'Prints labels',
  }
  const first = await put('print', full)
  expect(first).toMatchObject({ status: 200, body: { name: 'print', ...full } })
  expect((await server.api.get('/actions/print')).body).toEqual(first.body)
  expect((await server.api.get('/actions')).body.items).toEqual([first.body])
  const second = await put('print', { description: 'only this' })
  expect(second.body).toEqual({
    name: 'print',
    delivery: 'at_most_once',
    description: 'only this',
    updatedAt: expect.any(String),
  })
  expect(await server.api.send('DELETE', '/actions/print')).toMatchObject({ status: 204, body: undefined })
  expectProblem(await server.api.get('/actions/print'), 404, 'NOT_FOUND')
  expectProblem(await server.api.send('DELETE', '/actions/print'), 404, 'NOT_FOUND')
  expect((await server.api.get('/actions')).body.items).toEqual([])
})

describe('a payload schema', () => {
  beforeAll(async () => {
    await put('label', {
      payloadSchema: {
        type: 'object',
        required: ['copies'],
        additionalProperties: false,
        properties: {
          copies: { type: 'integer', minimum: 1 },
          lines: {
            type: 'array',
            items: { type: 'object', required: ['text'], properties: { text: { type: 'string' } } },
          },
        },
      },
    })
  })

  test('lets through what meets it, unchanged', async () => {
    const payload = { lines: [{ text: 'a', size: 3 }], copies: 2 }
    const created = await send('label', { payload })
    expect(created.status).toBe(201)
    expect(JSON.stringify(created.body.payload)).toBe(JSON.stringify(payload))
  })

  test.each([
    ['no payload', undefined, ['payload']],
    ['null', null, ['payload']],
    ['another type', 'text', ['payload']],
    ['a missing field', {}, ['payload']],
    ['a wrong field', { copies: 0 }, ['payload.copies']],
    ['a wrong field deep inside', { copies: 1, lines: [{ text: 'a' }, { text: 5 }] }, ['payload.lines.1.text']],
    ['several faults', { copies: 'x', lines: [{}], extra: 1 }, ['payload', 'payload.copies', 'payload.lines.0']],
  ])('refuses %s, names every fault, and nothing is stored', async (_name, payload, expected) => {
    const before = await stored(server)
    const answer = await send('label', { payload })
    expectProblem(answer, 400, 'INVALID_INPUT')
    expect(paths(answer).sort()).toEqual(expected)
    expect(await stored(server)).toEqual(before)
  })

  test('of a field with a slash or a tilde in its name gives its path as it is', async () => {
    await put('odd', { payloadSchema: { properties: { 'a/b~c': { type: 'number' } } } })
    expect(paths(await send('odd', { payload: { 'a/b~c': 'x' } }))).toEqual(['payload.a/b~c'])
  })

  test('counts from the next command on, when it is put, changed or deleted', async () => {
    for (let round = 0; round < 5; round++) {
      expect((await send('live', { payload: 'text' })).status).toBe(201)
      await put('live', { payloadSchema: { type: 'number' } })
      expectProblem(await send('live', { payload: 'text' }), 400, 'INVALID_INPUT')
      await put('live', { payloadSchema: { type: 'string' } })
      expect((await send('live', { payload: 'text' })).status).toBe(201)
      expectProblem(await send('live', { payload: 5 }), 400, 'INVALID_INPUT')
      await server.api.send('DELETE', '/actions/live')
    }
  })

  test('may have the $id of another one', async () => {
    const $id = 'https://example.com/same'
    await put('same-1', { payloadSchema: { $id, type: 'number' } })
    await put('same-2', { payloadSchema: { $id, type: 'string' } })
    expect((await send('same-1', { payload: 1 })).status).toBe(201)
    expect((await send('same-2', { payload: 'x' })).status).toBe(201)
    expectProblem(await send('same-1', { payload: 'x' }), 400, 'INVALID_INPUT')
  })

  test('may refer to itself, and have formats and keywords that nobody knows', async () => {
    const tree = {
      $defs: {
        node: {
          type: 'object',
          properties: { next: { $ref: '#/$defs/node' }, at: { type: 'string', format: 'unheard-of' } },
        },
      },
      $ref: '#/$defs/node',
      'x-owner': 'team',
    }
    expect((await put('tree', { payloadSchema: tree })).status).toBe(200)
    expect((await send('tree', { payload: { next: { next: {} } } })).status).toBe(201)
    expect(paths(await send('tree', { payload: { next: { next: 5 } } }))).toEqual(['payload.next.next'])
  })
})

describe('a schema that is none is refused, and the old one stays', () => {
  test.each([
    ['an unknown type', { type: 'text' }],
    ['a wrong keyword value', { minimum: 'x' }],
    ['a reference to nothing', { $ref: '#/$defs/none' }],
    ['a reference to another site', { $ref: 'https://example.com/schema' }],
    ['a pattern that is no expression', { pattern: '(' }],
    ['another draft', { $schema: 'http://json-schema.org/draft-04/schema#' }],
    ['one that would be checked later ($async)', { $async: true, type: 'number' }],
    [
      'one that refers to another that would be checked later',
      { $ref: '#/$defs/a', $defs: { a: { $async: true, type: 'number' } } },
    ],
  ])('%s', async (_name, payloadSchema) => {
    await put('kept', { payloadSchema: { type: 'boolean' } })
    const answer = await put('kept', { payloadSchema })
    expectProblem(answer, 400, 'INVALID_INPUT')
    expect(paths(answer)).toEqual(['payloadSchema'])
    expect((await server.api.get('/actions/kept')).body.payloadSchema).toEqual({ type: 'boolean' })
    expectProblem(await send('kept', { payload: 1 }), 400, 'INVALID_INPUT')
  })
})

test.each([
  [{ payloadSchema: 'x' }, 'payloadSchema'],
  [{ payloadSchema: [] }, 'payloadSchema'],
  [{ delivery: 'exactly_once' }, 'delivery'],
  [{ startTimeoutSeconds: 0 }, 'startTimeoutSeconds'],
  [{ timeoutSeconds: -5 }, 'timeoutSeconds'],
  [{ ttlSeconds: 1.5 }, 'ttlSeconds'],
  [{ maxRetries: 101 }, 'maxRetries'],
  [{ priority: 0 }, 'priority'],
  [{ description: 'x'.repeat(2001) }, 'description'],
  [{ retries: 3 }, 'body'],
])('PUT %j is INVALID_INPUT', async (body, path) => {
  const answer = await put('never', body)
  expectProblem(answer, 400, 'INVALID_INPUT')
  expect(paths(answer)).toEqual([path])
  expectProblem(await server.api.get('/actions/never'), 404, 'NOT_FOUND')
})

describe('a command gets', () => {
  const lifetime = ({ body }: { body: { createdAt: string; expiresAt: string } }): number =>
    Math.round((Date.parse(body.expiresAt) - Date.parse(body.createdAt)) / 1000)

  test('the defaults of the settings for an action that nobody registered', async () => {
    const created = await send('unheard')
    expect(created.body).toMatchObject({
      delivery: 'at_most_once',
      priority: 5,
      startTimeoutSeconds: 3600,
      timeoutSeconds: 3600,
      maxRetries: 3,
    })
    expect(lifetime(created)).toBe(604_800)
  })

  test('the delivery class and the defaults of its action', async () => {
    await put('door', {
      delivery: 'at_least_once',
      priority: 8,
      startTimeoutSeconds: 11,
      timeoutSeconds: 22,
      ttlSeconds: 33,
      maxRetries: 0,
    })
    const created = await send('door')
    expect(created.body).toMatchObject({
      delivery: 'at_least_once',
      priority: 8,
      startTimeoutSeconds: 11,
      timeoutSeconds: 22,
      maxRetries: 0,
    })
    expect(lifetime(created)).toBe(33)
    expect((await server.api.get(`/commands/${created.body.id}`)).body).toEqual(created.body)
  })

  test('what it says itself, over its action', async () => {
    const created = await send('door', {
      priority: 1,
      startTimeoutSeconds: 1,
      timeoutSeconds: 2,
      ttlSeconds: 3,
      maxRetries: 100,
    })
    expect(created.body).toMatchObject({ priority: 1, startTimeoutSeconds: 1, timeoutSeconds: 2, maxRetries: 100 })
    expect(lifetime(created)).toBe(3)
    const expiresAt = new Date(Date.now() + 500_000).toISOString()
    expect((await send('door', { expiresAt })).body.expiresAt).toBe(expiresAt)
  })

  test('what its action was when it was created: a change does not reach back', async () => {
    const { body } = await send('door')
    await put('door', { delivery: 'at_most_once' })
    expect((await server.api.get(`/commands/${body.id}`)).body).toMatchObject({
      delivery: 'at_least_once',
      priority: 8,
    })
    expect((await send('door')).body).toMatchObject({ delivery: 'at_most_once', priority: 5 })
  })

  test("no class of its own: the delivery class is the action's word", async () => {
    expectProblem(await send('door', { delivery: 'at_least_once' }), 400, 'INVALID_INPUT')
  })
})
