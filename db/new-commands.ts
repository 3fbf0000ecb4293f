import { sql } from 'kysely'
import type { CommandPreview, Exclusion, Target } from '../schemas/commands.ts'
import type { Delivery } from '../schemas/executions.ts'
import type { Json } from '../schemas/json.ts'
import type { Db } from './connect.ts'
import { AGAINST_DELETION, JUDGED, judgedByGrants, targetsOf } from './judged-commands.ts'
import { CLAIM_COLUMNS, claimColumns, GIVEN_BACK, type QuotaClaim, type QuotaState, quotaAnswer } from './quotas.ts'
import { rows } from './rows.ts'

/** A command, its id made by the caller. */
export interface NewCommand {
  id: string
  principalId: string
  createdBy: string
  idempotencyKey: string | null
  /** SHA-256 of the request, hex; null without a key. */
  requestHash: string | null
  target: Target
  action: string
  payload: Json | undefined
  priority: number
  delivery: Delivery
  startTimeoutSeconds: number
  timeoutSeconds: number
  maxRetries: number
  notBefore: string | null
  /** Either an instant or a time to live. */
  expiresAt: string | null
  ttlSeconds: number
  /** The hash of the targets that the caller was shown, or null. */
  expectedTargets: string | null
  /** What it counts against; null: nothing. */
  quota: QuotaClaim | null
  /** The sessions, by client, that take it at once. */
  claims: ReadonlyMap<string, EarlyClaim>
  /** Its one client's queue has room for it, whatever waits there: that is not counted. */
  sure: boolean
}

/** A session that has nothing else to wait for and a place in its window; `journalId`: the journal it has published. */
export interface EarlyClaim {
  epoch: number
  journalId: string | null
}

export type Refusal =
  | 'unknown_client'
  | 'no_targets'
  | 'disabled'
  | 'past_expiry'
  | 'never_due'
  | 'queue_full'
  | 'targets_changed'
  | 'key_in_use'
  | 'not_covered'
  | 'day_limit'

/** How the day limits of a command with a claim stand. */
export interface DayQuotas {
  quotas: QuotaState[]
  daySecondsLeft: number
}

interface Judged {
  id: string
  day: DayQuotas | null
  /** For how many more its client's queue has room at least, where that was counted; below 0: it had none for this one. */
  room: number | null
}

export type InsertedCommand =
  | (Judged & { refusal: Refusal; uncovered: number })
  | (Judged & {
      refusal: null
      createdAt: string
      notBefore: string | null
      expiresAt: string
      /** Who gets it, and who of the group does not. */
      clientIds: string[]
      excluded: Exclusion[]
      /** Those of whom the command is stored as claimed. */
      claimed: string[]
    })

const COMMAND = {
  ord: 'integer',
  id: 'uuid',
  principal_id: 'uuid',
  created_by: 'text',
  key: 'text',
  request_hash: 'bytea',
  target: 'jsonb',
  kind: 'text',
  client_id: 'text',
  zone: 'text',
  action: 'text',
  payload: 'json',
  priority: 'smallint',
  delivery: 'text',
  start_timeout_seconds: 'integer',
  timeout_seconds: 'integer',
  max_retries: 'integer',
  not_before: 'timestamptz',
  expires_at: 'timestamptz',
  ttl_seconds: 'integer',
  expected: 'text',
  sure: 'boolean',
}

/**
 * Judges and stores a batch of commands for one client each, or one for a group, with their executions, events and idempotency keys in
 * one statement. Each row stands for itself: a refused one stores nothing. A group's list of clients is frozen here.
 * A twin of a key that is being committed elsewhere waits for it. Only a batch with a quota claim asks for quotas.
 * What a session takes at once is stored as `transition` would leave it after its claim, if it is its client's current session.
 */
export async function insertCommands(
  db: Db,
  commands: NewCommand[],
  { maxPendingPerClient, dayTimeZone }: { maxPendingPerClient: number; dayTimeZone: string },
): Promise<InsertedCommand[]> {
  const [kind, ...others] = new Set(commands.map(({ target }) => target.kind))
  if (kind === undefined || others.length > 0 || (kind !== 'client' && commands.length > 1))
    throw new Error('a batch is of commands for one client each, or of one for a group')
  const limited = commands.some(({ quota }) => quota !== null)
  const claims = commands.flatMap(({ id, claims }) =>
    [...claims].map(([clientId, claim]) => [`${id} ${clientId}`, claim] as const),
  )
  const early = claims.length > 0
  const keyed = commands.some(({ idempotencyKey }) => idempotencyKey !== null)
  const input = commands.map((command, ord) => ({
    ord,
    id: command.id,
    principal_id: command.principalId,
    created_by: command.createdBy,
    key: command.idempotencyKey,
    request_hash: command.requestHash === null ? null : `\\x${command.requestHash}`,
    target: command.target,
    kind: command.target.kind,
    client_id: command.target.kind === 'client' ? command.target.clientId : null,
    zone: command.target.kind === 'zone' ? command.target.zone : null,
    action: command.action,
    payload: command.payload,
    priority: command.priority,
    delivery: command.delivery,
    start_timeout_seconds: command.startTimeoutSeconds,
    timeout_seconds: command.timeoutSeconds,
    max_retries: command.maxRetries,
    not_before: command.notBefore,
    expires_at: command.expiresAt,
    ttl_seconds: command.ttlSeconds,
    expected: command.expectedTargets,
    sure: command.sure,
    ...(limited ? claimColumns(command.quota) : {}),
  }))
  const found = await sql<{
    id: string
    refusal: Refusal | null
    room: number | null
    created_at: Date
    not_before: Date | null
    expires_at: Date
    client_ids: string[]
    excluded: Exclusion[]
    claimed?: string[] | null
    quotas?: QuotaState[] | null
    day_seconds_left?: number
    uncovered?: number | null
  }>`
    with requested as materialized (
      select i.*, date_trunc('milliseconds', n.now) as created_at,
        date_trunc('milliseconds', coalesce(i.expires_at, n.now + make_interval(secs => i.ttl_seconds))) as expiry,
        case when i.not_before > n.now then date_trunc('milliseconds', i.not_before) end as start
      from ${rows('i', limited ? { ...COMMAND, ...CLAIM_COLUMNS } : COMMAND, input)},
        (select clock_timestamp() as now) n
    ),
    timely as ${keyed ? sql`materialized` : sql`not materialized`} (
      select r.*, case when r.expiry <= r.created_at then 'past_expiry' when r.start >= r.expiry then 'never_due' end as untimely
      from requested r
    ),
    -- A place in a queue is only for what will be stored: neither for what is refused nor for the repetition of a key.
    input as materialized (
      select t.*, t.untimely is null ${keyed ? FIRST_OF_ITS_KEY : sql``} as takes_place from timely t
    ),
    ${targetsOf(kind, maxPendingPerClient, AGAINST_DELETION)},
    ${limited ? judgedByGrants(dayTimeZone) : JUDGED},
    ${keyed ? KEYED : sql`accepted as not materialized (select * from judged where fault is null),`}
    new_commands as (
      insert into commands (id, target, action, payload, priority, delivery, start_timeout_seconds, timeout_seconds,
        max_retries, total, excluded, created_by, created_at, not_before, expires_at)
      select id, target, action, payload, priority, delivery, start_timeout_seconds, timeout_seconds, max_retries,
        cardinality(client_ids), excluded, created_by, created_at, start, expiry
      from accepted
    ),
    ${early ? earlyExecutions(Object.fromEntries(claims)) : EXECUTIONS}
    new_events as (
      insert into events (type, command_id, client_id, attempt, data)
      select type, command_id, client_id, attempt, data from (
        select 'command.created' as type, id as command_id, client_id, null::integer as attempt, 0 as rank, ord,
          jsonb_build_object('action', action, 'createdBy', created_by, 'total', cardinality(client_ids)) as data
        from accepted ${early ? EARLY_EVENTS : sql``}
      ) e order by ord, rank
    )${limited ? sql`, ${GIVEN_BACK}` : sql``}
    select j.id, j.created_at, j.start as not_before, j.expiry as expires_at, j.client_ids, j.excluded, j.room,
      ${keyed ? sql`case when j.fault is null and a.id is null then 'key_in_use' else j.fault end` : sql`j.fault`} as refusal
      ${early ? sql`, c.claimed` : sql``}
      ${limited ? sql`, ${quotaAnswer(dayTimeZone)}` : sql``}
    from judged j
    ${keyed ? sql`left join accepted a on a.id = j.id` : sql``}
    ${early ? sql`left join (select id, array_agg(client_id) as claimed from born where claim is not null group by id) c on c.id = j.id` : sql``}
    `.execute(db)
  return found.rows.map((row) => {
    const day = row.quotas ? { quotas: row.quotas, daySecondsLeft: row.day_seconds_left as number } : null
    const judged: Judged = { id: row.id, day, room: row.room }
    return row.refusal
      ? { ...judged, refusal: row.refusal, uncovered: row.uncovered ?? 0 }
      : {
          ...judged,
          refusal: null,
          createdAt: row.created_at.toISOString(),
          notBefore: row.not_before?.toISOString() ?? null,
          expiresAt: row.expires_at.toISOString(),
          clientIds: row.client_ids,
          excluded: row.excluded,
          claimed: row.claimed ?? [],
        }
  })
}

const FIRST_OF_ITS_KEY = sql`
        and (t.key is null or (
          row_number() over (partition by t.principal_id, t.key, t.untimely is null order by t.ord) = 1
          and not exists (select 1 from idempotency_keys k where k.principal_id = t.principal_id and k.key = t.key)
        ))`

/** Of what may be stored, what is not the repetition of a key. */
const KEYED = sql`
    keyed as (
      insert into idempotency_keys (principal_id, key, request_hash, command_id, created_at)
      select principal_id, key, request_hash, id, created_at from judged
      where fault is null and key is not null
      order by principal_id, key
      on conflict do nothing
      returning command_id
    ),
    accepted as materialized (
      select * from judged j where fault is null and (key is null or exists (select 1 from keyed where command_id = j.id))
    ),`

const EXECUTIONS = sql`
    new_executions as (
      insert into executions (command_id, client_id, status, attempt, priority, not_before, expires_at)
      select id, unnest(client_ids), 'pending', 1, priority, start, expiry from accepted
    ),`

/**
 * The same with claims, by command and client: in one value beside the rows, which would be copied with each of them. A client that
 * somebody is changing just now is not waited for: its session claims as ever.
 */
const earlyExecutions = (claims: Record<string, EarlyClaim>) => sql`
    born as materialized (
      select n.*, s.claim
      from (
        select id, ord, created_at, priority, start, expiry, start_timeout_seconds, unnest(client_ids) as client_id from accepted
      ) n
      left join lateral (
        select c.claim from (select ${JSON.stringify(claims)}::jsonb -> concat_ws(' ', n.id, n.client_id) as claim offset 0) c
        cross join lateral (
          select 1 from clients where id = n.client_id and session_epoch = (c.claim ->> 'epoch')::bigint for no key update skip locked
        ) k
      ) s on n.start is null
    ),
    new_executions as (
      insert into executions (command_id, client_id, status, attempt, priority, not_before, expires_at, epoch, handovers, deadline, queued_at)
      select id, client_id, 'pending', 1, priority, start, expiry, null, '[]', null, null from born where claim is null
      union all
      select id, client_id, 'queued', 1, priority, start, expiry, (claim ->> 'epoch')::bigint,
        jsonb_build_array(jsonb_build_object('attempt', 1, 'journalId', claim -> 'journalId')),
        created_at + make_interval(secs => start_timeout_seconds), created_at
      from born where claim is not null
    ),`

const EARLY_EVENTS = sql`
        union all
        select 'execution.queued', id, client_id, 1, 1, ord, jsonb_build_object('epoch', claim -> 'epoch')
        from born where claim is not null`

export async function readDatabaseClock(db: Db): Promise<Date> {
  const { rows: found } = await sql<{ now: Date }>`select clock_timestamp() as now`.execute(db)
  return (found[0] as { now: Date }).now
}

/** Who would get a command now. The list is kept under its hash, so that a later change can be told (`findPreview`). */
export async function previewTargets(
  db: Db,
  target: Target,
  priority: number,
  maxPendingPerClient: number,
): Promise<CommandPreview> {
  const { kind } = target
  const input = [
    {
      ord: 0,
      id: '00000000-0000-0000-0000-000000000000',
      client_id: kind === 'client' ? target.clientId : null,
      zone: kind === 'zone' ? target.zone : null,
      priority,
      sure: false,
      takes_place: true,
    },
  ]
  const found = await sql<{
    hash: string
    excluded: Exclusion[]
    targets: { clientId: string; online: boolean; pending: number }[] | null
  }>`
    with input as materialized (select * from ${rows('i', PREVIEWED, input)}),
    ${targetsOf(kind, maxPendingPerClient, sql``)},
    kept as (
      insert into target_previews (hash, client_ids) select hash, coalesce(client_ids, '{}') from target_lists
      on conflict (hash) do update set created_at = clock_timestamp()
    )
    select l.hash, l.excluded,
      (select jsonb_agg(jsonb_build_object('clientId', t.client_id, 'online', t.online, 'pending', t.pending) order by t.client_id)
        from targets t where t.reason is null) as targets
    from target_lists l`.execute(db)
  const [row] = found.rows
  const targets = (row?.targets ?? []).map(({ clientId, online, pending }) => ({
    clientId,
    presence: online ? ('online' as const) : ('offline' as const),
    pending,
  }))
  return {
    total: targets.length,
    online: targets.filter((one) => one.presence === 'online').length,
    targets,
    excluded: row?.excluded ?? [],
    hash: row?.hash ?? NO_TARGETS_HASH,
  }
}

const PREVIEWED = {
  ord: 'integer',
  id: 'uuid',
  client_id: 'text',
  zone: 'text',
  priority: 'smallint',
  sure: 'boolean',
  takes_place: 'boolean',
}

/** SHA-256 of nothing: a group without members. */
const NO_TARGETS_HASH = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'

/** The clients that a preview showed, or undefined once it is forgotten. */
export async function findPreview(db: Db, hash: string): Promise<string[] | undefined> {
  const row = await db.selectFrom('target_previews').select('client_ids').where('hash', '=', hash).executeTakeFirst()
  return row?.client_ids
}

export async function forgetPreviews(db: Db, olderThanSeconds: number): Promise<void> {
  await sql`delete from target_previews where created_at < clock_timestamp() - make_interval(secs => ${olderThanSeconds})`.execute(
    db,
  )
}

/** What an Idempotency-Key stands for, or undefined once it is forgotten. */
export async function findIdempotencyKey(
  db: Db,
  principalId: string,
  key: string,
): Promise<{ commandId: string; requestHash: string } | undefined> {
  const row = await db
    .selectFrom('idempotency_keys')
    .select(['command_id', 'request_hash'])
    .where('principal_id', '=', principalId)
    .where('key', '=', key)
    .executeTakeFirst()
  return row && { commandId: row.command_id, requestHash: row.request_hash.toString('hex') }
}

export async function forgetIdempotencyKeys(db: Db, olderThanSeconds: number, limit: number): Promise<void> {
  await sql`
    delete from idempotency_keys where (principal_id, key) in (
      select principal_id, key from idempotency_keys
      where created_at < clock_timestamp() - make_interval(secs => ${olderThanSeconds}) order by created_at limit ${limit})`.execute(
    db,
  )
}
