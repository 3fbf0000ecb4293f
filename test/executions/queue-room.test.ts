import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type InsertedCommand, insertCommands, type NewCommand } from '../../db/new-commands.ts'
import { command, only } from './support/new-commands.ts'
import { clientIds, fill, openStore, type Store } from './support/store.ts'

let store: Store
beforeAll(async () => {
  store = await openStore()
})
afterAll(() => store.stop())

const insert = (...commands: NewCommand[]): Promise<InsertedCommand[]> =>
  insertCommands(store.db, commands, { maxPendingPerClient: 3, dayTimeZone: 'UTC' })
/** Clients without a session. */
async function register(howMany: number): Promise<string[]> {
  const ids = clientIds(howMany)
  await fill(
    store,
    ids.map((id) => ({ id, epoch: null, maxInFlight: 8, disabled: false })),
    [],
  )
  return ids
}
const resultOf = (inserted: InsertedCommand[], { id }: NewCommand): InsertedCommand | undefined =>
  inserted.find((result) => result.id === id)

test('the room that is left behind each command of a batch is told where it was counted', async () => {
  const [clientId, other] = (await register(2)) as [string, string]
  const [first, second, sure] = [
    command(only(clientId)),
    command(only(clientId)),
    command(only(other), {}, { sure: true }),
  ]
  const inserted = await insert(first, second, sure)
  expect([first, second, sure].map((one) => resultOf(inserted, one)?.room)).toEqual([2, 1, null])
  const third = command(only(clientId))
  expect(resultOf(await insert(third), third)?.room).toBe(0)
  const fourth = command(only(clientId))
  expect(resultOf(await insert(fourth), fourth)).toMatchObject({ refusal: 'queue_full', room: -1 })
})

test('it is not more than there is, though a key is repeated whose first use stores nothing', async () => {
  const [clientId] = (await register(1)) as [string]
  const principalId = randomUUID()
  await store.query('insert into principals (id, name, role) values ($1, $2, $2)', [principalId, 'operator'])
  const same = { principalId, idempotencyKey: 'k', requestHash: 'ab' }
  const [first, repeated] = [command(only('nobody'), {}, same), command(only(clientId), {}, same)]
  const inserted = await insert(first, repeated)
  expect(resultOf(inserted, first)).toMatchObject({ refusal: 'unknown_client', room: null })
  expect(resultOf(inserted, repeated)).toMatchObject({ refusal: null, room: 2 })
})
