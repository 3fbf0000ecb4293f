import { afterAll, beforeAll, expect, test } from 'vitest'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import type { Http } from '../support/http.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { startServerProcess } from '../support/server-process.ts'
import { until } from '../support/until.ts'

const SETTINGS = { MAX_PENDING_PER_CLIENT: 5, NODE_LEASE_SECONDS: 1 }

let database: TestDatabase
let first: TestServer

beforeAll(async () => {
  database = await createTestDatabase()
  first = await startServer(SETTINGS, { database })
})
afterAll(async () => {
  await first.stop()
  await database.drop()
})

const send = async (server: { api: Http }, clientId: string): Promise<number> =>
  (await server.api.post('/commands', { clientId, action: 'print' })).status

/** The oldest node has heard of what was committed before. */
async function renewed(): Promise<void> {
  const lease = async (): Promise<number | undefined> => {
    const [row] = await database.query('select expires_at from nodes order by started_at limit 1')
    return (row?.expires_at as Date | undefined)?.getTime()
  }
  for (let renewals = 0; renewals < 2; renewals++) {
    const before = await lease()
    await until(async () => (await lease()) !== before, 'a renewed lease')
  }
}

test('what a node that has come has stored since counts', async () => {
  await first.api.post('/clients', { id: 'c1' })
  expect(await send(first, 'c1')).toBe(201)
  const second = await startServer(SETTINGS, { database })
  await renewed()
  for (let index = 0; index < 4; index++) expect(await send(second, 'c1')).toBe(201)
  expect(await send(second, 'c1')).toBe(429)
  expect(await send(first, 'c1')).toBe(429)
  await second.stop()
})

test('so does what a node stored that has come and gone, though the other one stored nothing meanwhile', async () => {
  await first.api.post('/clients', { id: 'c2' })
  await renewed()
  expect(await send(first, 'c2')).toBe(201)
  const second = await startServer(SETTINGS, { database })
  await renewed()
  for (let index = 0; index < 4; index++) expect(await send(second, 'c2')).toBe(201)
  await second.stop()
  await renewed()
  expect(await send(first, 'c2')).toBe(429)
})

test('and what one has stored that was killed before anybody had heard of it', async () => {
  // Its first renewal is at its start, the next one much later.
  const settings = { ...SETTINGS, NODE_LEASE_SECONDS: 15 }
  const other = await createTestDatabase()
  const alone = await startServer(settings, { database: other })
  try {
    await alone.api.post('/clients', { id: 'c3' })
    expect(await send(alone, 'c3')).toBe(201)
    const killed = await startServerProcess(other, { settings })
    for (let index = 0; index < 4; index++) expect(await send(killed, 'c3')).toBe(201)
    await killed.kill()
    await until(async () => (await other.query('select 1 from nodes')).length === 1, 'it is known to be gone')
    expect(await send(alone, 'c3')).toBe(429)
  } finally {
    await alone.stop()
    await other.drop()
  }
})
