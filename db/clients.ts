import { sql } from 'kysely'
import type { Client, ClientConfig, CreateClient, ListClients, UpdateClient } from '../schemas/clients.ts'
import type { Json } from '../schemas/json.ts'
import type { Page, Paging } from '../schemas/paging.ts'
import type { Audited } from './audit.ts'
import type { Db } from './connect.ts'
import { compact, list, page, rows } from './rows.ts'

interface ClientRow {
  id: string
  name: string
  zones: string[]
  online: boolean
  presence_since: Date
  last_seen_at: Date | null
  disabled: boolean
  reported: Record<string, Json> | null
  max_in_flight: number
  metadata: Record<string, Json>
  created_at: Date
}

const COLUMNS = sql`
  k.id, k.name, k.session_epoch is not null and not k.silent as online, k.presence_since, k.last_seen_at, k.disabled, k.reported, k.max_in_flight, k.metadata, k.created_at,
  array(select z.zone from zone_members z where z.client_id = k.id order by z.zone) as zones`

/** Stores a client with its key's hash, and the enrolment it comes from. A deleted client's id may be used again; answers undefined if the id is taken. */
export async function insertClient(
  db: Audited,
  client: CreateClient & { maxInFlight: number; enrolmentId: string | null },
  keyHash: Buffer,
): Promise<Client | undefined> {
  const found = await sql<{ id: string }>`
    with client as (
      insert into clients (id, name, key_hash, max_in_flight, metadata, enrolment_id)
      values (${client.id}, ${client.name ?? client.id}, ${keyHash}, ${client.maxInFlight}, ${JSON.stringify(client.metadata ?? {})}::jsonb,
        ${client.enrolmentId}::uuid)
      on conflict (id) do update set name = excluded.name, key_hash = excluded.key_hash, disabled = false,
        max_in_flight = excluded.max_in_flight, metadata = excluded.metadata, reported = null, last_seen_at = null,
        presence_since = clock_timestamp(), created_at = clock_timestamp(), deleted_at = null, enrolment_id = excluded.enrolment_id,
        previous_key_hash = clients.key_hash, previous_key_until = clock_timestamp()
      where clients.deleted_at is not null
      returning id
    ),
    zones as (insert into zone_members (zone, client_id) select distinct z, id from client, unnest(${client.zones ?? []}::text[]) z),
    logged as (insert into events (type, client_id) select 'client.created', id from client)
    select id from client`.execute(db)
  return found.rows[0] && findClient(db, client.id)
}

export async function findClient(db: Db, id: string): Promise<Client | undefined> {
  const found =
    await sql<ClientRow>`select ${COLUMNS} from clients k where k.id = ${id} and k.deleted_at is null`.execute(db)
  return found.rows[0] && toClient(found.rows[0])
}

export async function listClients(db: Db, filter: ListClients, paging: Paging): Promise<Page<Client>> {
  const conditions = [
    sql`k.deleted_at is null`,
    paging.after !== undefined ? sql`k.id > ${paging.after}` : undefined,
    filter.zone !== undefined
      ? sql`exists (select 1 from zone_members z where z.client_id = k.id and z.zone = ${filter.zone})`
      : undefined,
    filter.presence !== undefined
      ? sql`(k.session_epoch is not null and not k.silent) = ${filter.presence === 'online'}`
      : undefined,
    filter.disabled !== undefined ? sql`k.disabled = ${filter.disabled}` : undefined,
    filter.q !== undefined ? sql`(position(lower(${filter.q}) in lower(k.id || ' ' || k.name)) > 0)` : undefined,
  ].filter((condition) => condition !== undefined)
  const found = await sql<ClientRow>`
    select ${COLUMNS} from clients k where ${sql.join(conditions, sql` and `)} order by k.id limit ${paging.limit + 1}`.execute(
    db,
  )
  return page(found.rows, paging.limit, (row) => row.id, toClient)
}

export interface ClientChange extends UpdateClient {
  disabled?: boolean
  keyHash?: Buffer
  /** With a new key: how long the old one still works. */
  graceSeconds?: number
}

/** Changes a client; answers undefined if there is none. */
export async function updateClient(db: Audited, id: string, change: ClientChange): Promise<Client | undefined> {
  const found = await sql<{ id: string }>`
    with locked as (
      select id from clients where id = ${id} and deleted_at is null for update
    ),
    client as (
      update clients set
        name = coalesce(${change.name ?? null}::text, name),
        max_in_flight = coalesce(${change.maxInFlight ?? null}::integer, max_in_flight),
        metadata = coalesce(${change.metadata ? JSON.stringify(change.metadata) : null}::jsonb, metadata),
        disabled = coalesce(${change.disabled ?? null}::boolean, disabled),
        previous_key_hash = case when ${change.keyHash ?? null}::bytea is null then previous_key_hash else key_hash end,
        previous_key_until = case when ${change.keyHash ?? null}::bytea is null then previous_key_until
          else clock_timestamp() + make_interval(secs => ${change.graceSeconds ?? 0}) end,
        key_hash = coalesce(${change.keyHash ?? null}::bytea, key_hash)
      where id in (select id from locked) returning id
    ),
    left_zones as (
      delete from zone_members where client_id in (select id from client) and ${change.zones ?? null}::text[] is not null
        and zone <> all (coalesce(${change.zones ?? null}::text[], '{}'))
    ),
    new_zones as (
      insert into zone_members (zone, client_id) select distinct z, id from client, unnest(${change.zones ?? []}::text[]) z
      on conflict do nothing
    ),
    logged as (
      insert into events (type, client_id, data)
      select 'client.updated', id, jsonb_build_object('changed', ${JSON.stringify(Object.keys(change))}::jsonb) from client
    )
    select id from client`.execute(db)
  return found.rows[0] && findClient(db, id)
}

/** Ids of deleted clients, in pages by id. */
export async function listDeleted(db: Db, after: string, limit: number): Promise<string[]> {
  const found = await sql<{ id: string }>`
    select id from clients where deleted_at is not null and id > ${after} order by id limit ${limit}`.execute(db)
  return found.rows.map(({ id }) => id)
}

/** Soft: history stays. Answers false if there is no such client. */
export async function deleteClient(db: Audited, id: string): Promise<boolean> {
  const found = await sql<{ id: string }>`
    with locked as (
      select id from clients where id = ${id} and deleted_at is null for update
    ),
    client as (
      update clients set deleted_at = clock_timestamp() where id in (select id from locked) returning id
    ),
    zones as (delete from zone_members where client_id in (select id from client)),
    logged as (insert into events (type, client_id) select 'client.deleted', id from client)
    select id from client`.execute(db)
  return found.rows.length > 0
}

/**
 * An HTTP client stopped or began to ping: its session lives on, but is shown otherwise. It is silent only if no node has heard
 * it for so many seconds. Answers since when, undefined if nothing changed.
 */
export async function markSilent(
  db: Db,
  session: { clientId: string; epoch: number },
  silent: boolean,
  afterSeconds: number,
): Promise<string | undefined> {
  const found = await sql<{ presence_since: Date }>`
    with changed as (
      update clients set silent = ${silent}, presence_since = clock_timestamp(), last_seen_at = case when ${silent} then last_seen_at else clock_timestamp() end
      where id = ${session.clientId} and session_epoch = ${session.epoch} and silent <> ${silent}
        and (not ${silent}::boolean or last_seen_at <= clock_timestamp() - make_interval(secs => ${afterSeconds}))
      returning id, presence_since
    ),
    logged as (
      insert into events (type, client_id, data)
      select ${silent ? 'client.offline' : 'client.online'}, id, jsonb_build_object('epoch', ${session.epoch}::bigint, 'ping', ${!silent}::boolean) from changed
    )
    select presence_since from changed`.execute(db)
  return found.rows[0]?.presence_since.toISOString()
}

/** Numbers new sessions and makes them the clients' current ones. A client that was disabled or deleted meanwhile gets none. */
export async function openSessions(db: Db, node: string, clientIds: string[]): Promise<Map<string, number>> {
  const found = await sql<{ id: string; session_epoch: number }>`
    with locked as (
      select id from clients where id = any(${list('text', clientIds)}) and deleted_at is null and not disabled order by id for no key update
    ),
    opened as (
      update clients k set session_epoch = nextval('session_epochs'), session_node = ${node}, silent = false,
        presence_since = clock_timestamp(), last_seen_at = clock_timestamp()
      where k.id = any(array(select id from locked))
      returning k.id, k.session_epoch
    ),
    logged as (
      insert into events (type, client_id, data)
      select 'client.online', id, jsonb_build_object('epoch', session_epoch) from opened
    )
    select id, session_epoch from opened`.execute(db)
  return new Map(found.rows.map((row) => [row.id, row.session_epoch]))
}

/** Ends sessions, unless a newer one has taken over. Answers since when each client that was not deleted is offline. */
export async function closeSessions(
  db: Db,
  sessions: { clientId: string; epoch: number }[],
): Promise<Map<string, string>> {
  const found = await sql<{ id: string; presence_since: Date }>`
    with locked as (
      select k.id, k.epoch
      from (
        select * from ${rows(
          's',
          { id: 'text', epoch: 'bigint' },
          sessions.map((session) => ({ id: session.clientId, epoch: session.epoch })),
        )}
        order by id
      ) s
      cross join lateral (
        select id, session_epoch as epoch from clients where id = s.id and session_epoch = s.epoch for no key update
      ) k
    ),
    closed as (
      update clients k set session_epoch = null, session_node = null, presence_since = clock_timestamp(), last_seen_at = clock_timestamp()
      where k.id = any(array(select id from locked))
      returning k.id, k.presence_since, k.deleted_at
    ),
    logged as (
      insert into events (type, client_id, data)
      select 'client.offline', c.id, jsonb_build_object('epoch', l.epoch) from closed c join locked l on l.id = c.id
    )
    select id, presence_since from closed where deleted_at is null`.execute(db)
  return new Map(found.rows.map((row) => [row.id, row.presence_since.toISOString()]))
}

/**
 * Sessions in the table that no connection has: this node's, except those that live (of a login that got no answer), and those
 * of nodes that live no more.
 */
export async function findLostSessions(
  db: Db,
  node: string,
  living: number[],
): Promise<{ clientId: string; epoch: number }[]> {
  const found = await sql<{ id: string; session_epoch: number }>`
    select k.id, k.session_epoch from clients k
    where k.session_epoch is not null and case when k.session_node = ${node}
      then not exists (select 1 from unnest(${living}::bigint[]) as l(epoch) where l.epoch = k.session_epoch)
      else not exists (select 1 from nodes n where n.id = k.session_node) end`.execute(db)
  return found.rows.map((row) => ({ clientId: row.id, epoch: row.session_epoch }))
}

/**
 * Keeps the last status each client published; of several of one client the last counts. `epoch`: the session that published it,
 * null for the one that is the client's current one, wherever that is.
 */
export async function storeReported(
  db: Db,
  statuses: { clientId: string; epoch: number | null; reported: Record<string, unknown> }[],
): Promise<void> {
  const latest = new Map(statuses.map((status) => [status.clientId, status]))
  const input = [...latest].map(([id, { epoch, reported }]) => ({ id, epoch, reported }))
  await sql`
    with input as (select * from ${rows('i', { id: 'text', epoch: 'bigint', reported: 'jsonb' }, input)}),
    locked as (
      select id from clients where id = any(array(select id from input)) order by id for no key update
    )
    update clients k set reported = i.reported, reported_epoch = coalesce(i.epoch, k.session_epoch), last_seen_at = clock_timestamp()
    from input i where k.id = any(array(select id from locked)) and k.id = i.id`.execute(db)
}

/** What everybody is told of a client: what is retained of it, and whether it may be connected. */
export interface ShownClient {
  id: string
  disabled: boolean
  /** As its status topic says it: what its live session published itself, or else whether there is one. */
  status: Record<string, Json>
  config: ClientConfig
}

interface ShownRow {
  id: string
  disabled: boolean
  online: boolean
  presence_since: Date
  own_status: Record<string, Json> | null
  max_in_flight: number
  zones: string[]
}

const SHOWN = sql`
  k.id, k.disabled, k.session_epoch is not null and not k.silent as online, k.presence_since, k.max_in_flight,
  case when k.reported_epoch = k.session_epoch then k.reported end as own_status,
  array(select z.zone from zone_members z where z.client_id = k.id order by z.zone) as zones`

/** All clients in pages by id. */
export async function listShown(db: Db, after: string, limit: number): Promise<ShownClient[]> {
  const found = await sql<ShownRow>`
    select ${SHOWN} from clients k where k.deleted_at is null and k.id > ${after} order by k.id limit ${limit}`.execute(
    db,
  )
  return found.rows.map(toShown)
}

/** Of these clients, those that were not deleted. */
export async function findShown(db: Db, ids: string[]): Promise<ShownClient[]> {
  const found = await sql<ShownRow>`
    select ${SHOWN} from clients k where k.deleted_at is null and k.id = any(${list('text', ids)})`.execute(db)
  return found.rows.map(toShown)
}

function toShown(row: ShownRow): ShownClient {
  const presence: Record<string, Json> = row.online
    ? { state: 'online' }
    : { state: 'offline', since: row.presence_since.toISOString() }
  return {
    id: row.id,
    disabled: row.disabled,
    status: (row.online && row.own_status) || presence,
    config: { zones: row.zones, maxInFlight: row.max_in_flight },
  }
}

export interface QueuedWork {
  commandId: string
  action: string
  status: string
  attempt: number
  priority: number
  createdAt: string
  expiresAt: string
}

/** Unsettled work of a client: what is in flight, then what waits, in the order in which it will be sent. */
export async function listQueue(db: Db, clientId: string, limit: number): Promise<QueuedWork[]> {
  const found = await sql<{
    command_id: string
    action: string
    status: string
    attempt: number
    priority: number
    created_at: Date
    expires_at: Date
  }>`
    select e.command_id, c.action, e.status, e.attempt, e.priority, c.created_at, e.expires_at
    from executions e join commands c on c.id = e.command_id
    where e.client_id = ${clientId} and e.status in ('pending', 'queued', 'delivered', 'running')
    order by e.status = 'pending', e.priority desc, e.command_id limit ${limit}`.execute(db)
  return found.rows.map((row) => ({
    commandId: row.command_id,
    action: row.action,
    status: row.status,
    attempt: row.attempt,
    priority: row.priority,
    createdAt: row.created_at.toISOString(),
    expiresAt: row.expires_at.toISOString(),
  }))
}

function toClient(row: ClientRow): Client {
  return {
    id: row.id,
    name: row.name,
    zones: row.zones,
    presence: row.online ? 'online' : 'offline',
    presenceSince: row.presence_since.toISOString(),
    disabled: row.disabled,
    reported: row.reported,
    maxInFlight: row.max_in_flight,
    metadata: row.metadata,
    createdAt: row.created_at.toISOString(),
    ...compact({ lastSeenAt: row.last_seen_at?.toISOString() }),
  }
}
