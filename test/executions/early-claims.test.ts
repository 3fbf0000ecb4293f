import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { transition } from '../../control/executions/lifecycle.ts'
import { newExecution } from '../../control/executions/states.ts'
import { loadExecutions } from '../../db/executions.ts'
import { type InsertedCommand, insertCommands, type NewCommand } from '../../db/new-commands.ts'
import { BACKOFF } from './support/inputs.ts'
import { command, only } from './support/new-commands.ts'
import { clientIds, fill, openStore, type Store } from './support/store.ts'

let store: Store
beforeAll(async () => {
  store = await openStore()
})
afterAll(() => store.stop())

const EPOCH = 7

const insert = (...commands: NewCommand[]): Promise<InsertedCommand[]> =>
  insertCommands(store.db, commands, { maxPendingPerClient: 3, dayTimeZone: 'UTC' })

/** Clients with a session, and nothing else. */
async function register(howMany: number, disabled = false): Promise<string[]> {
  const ids = clientIds(howMany)
  await fill(
    store,
    ids.map((id) => ({ id, epoch: EPOCH, maxInFlight: 8, disabled })),
    [],
  )
  return ids
}

const statuses = async (id: string): Promise<Record<string, string>> => {
  const rows = await store.query<{ client_id: string; status: string }>(
    'select client_id, status from executions where command_id = $1',
    [id],
  )
  return Object.fromEntries(rows.map((row) => [row.client_id, row.status]))
}

test('what a session takes at once is stored as the rules leave it after its claim, and its events say so in order', async () => {
  for (const delivery of ['at_most_once', 'at_least_once'] as const)
    for (const journalId of [null, randomUUID()]) {
      const [clientId] = (await register(1)) as [string]
      const claim = { epoch: EPOCH, journalId }
      const stored = command(only(clientId), { [clientId]: claim }, { delivery })
      const [inserted] = await insert(stored)
      if (inserted?.refusal !== null) throw new Error(inserted?.refusal)
      expect(inserted.claimed).toEqual([clientId])
      const { id, startTimeoutSeconds, timeoutSeconds, maxRetries } = stored
      const from = { delivery, startTimeoutSeconds, timeoutSeconds, maxRetries }
      const expiresAt = Date.parse(inserted.expiresAt)
      const context = { now: Date.parse(inserted.createdAt), backoff: BACKOFF, random: () => 0.5 }
      const { state, events } = transition(
        newExecution({ ...from, expiresAt, notBefore: null }),
        { type: 'claim', ...claim },
        context,
      )
      const { items } = await loadExecutions(store.db, [{ commandId: id, clientId }])
      expect(items[0]).toMatchObject({ version: 0, createdAt: context.now })
      expect(items[0]?.state).toEqual(state)
      const logged = await store.query(
        'select type, client_id, attempt, data from events where command_id = $1 order by id',
        [id],
      )
      expect(logged[0]).toMatchObject({ type: 'command.created', attempt: null })
      expect(logged.slice(1)).toEqual(events.map((event) => ({ ...event, client_id: clientId })))
    }
})

test('commands of one statement each have their own claims', async () => {
  const [one, two] = (await register(2)) as [string, string]
  const claim = { epoch: EPOCH, journalId: null }
  const commands = [command(only(one), { [one]: claim }), command(only(one), {}), command(only(two), { [two]: claim })]
  await insert(...commands)
  expect(await Promise.all(commands.map(({ id }) => statuses(id)))).toEqual([
    { [one]: 'queued' },
    { [one]: 'pending' },
    { [two]: 'queued' },
  ])
})

test('only the current session of a client that gets the command takes it, and only what is due', async () => {
  const [one, two] = (await register(2)) as [string, string]
  const claims = { [one]: { epoch: EPOCH, journalId: null }, [two]: { epoch: EPOCH - 1, journalId: null } }
  const all = command({ kind: 'broadcast' }, claims)
  const later = command(only(one), claims, { notBefore: new Date(Date.now() + 60_000).toISOString() })
  const late = command(only(one), claims, { expiresAt: new Date(Date.now() - 1000).toISOString() })
  const inserted = new Map((await insert(later, late)).map((result) => [result.id, result]))
  expect(await insert(all)).toMatchObject([{ refusal: null, claimed: [one] }])
  expect(inserted.get(later.id)).toMatchObject({ refusal: null, claimed: [] })
  expect(inserted.get(late.id)).toMatchObject({ refusal: 'past_expiry' })
  expect(await statuses(all.id)).toEqual({ [one]: 'queued', [two]: 'pending' })
  expect(await statuses(later.id)).toEqual({ [one]: 'pending' })
  expect(await statuses(late.id)).toEqual({})
  const [gone] = (await register(1, true)) as [string]
  const disabled = command(only(gone), { [gone]: { epoch: EPOCH, journalId: null } })
  expect(await insert(disabled)).toMatchObject([{ refusal: 'disabled' }])
  expect(await statuses(disabled.id)).toEqual({})
})

test('a client that somebody is changing is not waited for: its session claims later', async () => {
  const [one, two] = (await register(2)) as [string, string]
  const somebody = new pg.Client({ connectionString: store.url })
  await somebody.connect()
  await somebody.query('begin')
  await somebody.query('update clients set session_epoch = $1 where id = $2', [EPOCH + 1, one])
  const claim = { epoch: EPOCH, journalId: null }
  const all = command({ kind: 'broadcast' }, { [one]: claim, [two]: claim })
  expect(await insert(all)).toMatchObject([{ claimed: [two] }])
  await somebody.query('commit')
  await somebody.end()
  expect(await statuses(all.id)).toEqual({ [one]: 'pending', [two]: 'queued' })
})
