import type { ColumnType, Generated } from 'kysely'

/** Row types stay in db/: queries answer with shapes of their own. */
type Time = ColumnType<Date, Date | string | undefined, Date | string>
type NullableTime = ColumnType<Date | null, Date | string | null | undefined, Date | string | null>
/** Written as JSON text, read parsed. */
type JsonColumn<T> = ColumnType<T, string, string>

export interface Database {
  clients: {
    id: string
    name: string
    key_hash: Buffer
    disabled: Generated<boolean>
    max_in_flight: number
    metadata: JsonColumn<Record<string, unknown>>
    session_epoch: number | null
    session_node: string | null
    silent: Generated<boolean>
    presence_since: Time
    previous_key_hash: Buffer | null
    previous_key_until: NullableTime
    last_seen_at: NullableTime
    reported: JsonColumn<Record<string, unknown> | null>
    enrolment_id: string | null
    reported_epoch: number | null
    created_at: Time
    deleted_at: NullableTime
  }
  nodes: {
    id: string
    name: string
    process_space: string | null
    process_id: number
    started_at: Time
    expires_at: Time
  }
  zone_members: { zone: string; client_id: string }
  actions: {
    name: string
    payload_schema: JsonColumn<Record<string, unknown> | null>
    delivery: string
    start_timeout_seconds: number | null
    timeout_seconds: number | null
    ttl_seconds: number | null
    max_retries: number | null
    priority: number | null
    description: string | null
    updated_at: Time
  }
  principals: {
    id: string
    name: string
    role: string
    grants: ColumnType<unknown, string | undefined, string>
    created_at: Time
    deleted_at: NullableTime
  }
  tokens: {
    id: string
    principal_id: string
    name: string
    token_hash: Buffer
    created_at: Time
    expires_at: NullableTime
    revoked_at: NullableTime
    last_used_at: NullableTime
  }
  enrolments: {
    id: string
    name: string
    code_hash: Buffer
    zones: string[]
    id_prefix: string | null
    max_uses: number
    uses: Generated<number>
    created_by: string
    created_at: Time
    expires_at: Time
    revoked_at: NullableTime
  }
  console_sessions: {
    id: string
    token_id: string
    secret_hash: Buffer
    created_at: Time
    expires_at: Time
    last_used_at: Time
  }
  grant_usage: { principal_id: string; scope: string; day: string; used: number; refused: number }
  audit: {
    id: Generated<number>
    at: Time
    kind: string
    subject: string
    principal: string | null
    address: string | null
    request_id: string | null
    before: JsonColumn<unknown>
    after: JsonColumn<unknown>
  }
  security_events: {
    id: Generated<number>
    kind: string
    severity: string
    subject: string
    minute: Time
    principal: string | null
    client_id: string | null
    address: string | null
    detail: string
    count: number
    alerted: Generated<number>
    first_at: Time
    last_at: Time
  }
  commands: {
    id: string
    target: JsonColumn<unknown>
    action: string
    payload: JsonColumn<unknown>
    priority: number
    delivery: string
    start_timeout_seconds: number
    timeout_seconds: number
    max_retries: number
    total: number
    excluded: JsonColumn<unknown>
    created_by: string
    created_at: Time
    not_before: NullableTime
    expires_at: Time
  }
  idempotency_keys: {
    principal_id: string
    key: string
    request_hash: Buffer
    command_id: string
    created_at: Time
  }
  target_previews: { hash: string; client_ids: string[]; created_at: Time }
  executions: {
    command_id: string
    client_id: string
    status: string
    attempt: number
    version: number
    priority: number
    not_before: NullableTime
    expires_at: Time
    epoch: number | null
    handovers: JsonColumn<unknown>
    silent_attempts: number[]
    completed_before: JsonColumn<unknown>
    cancel_requested_at: NullableTime
    cancel_reason: string | null
    deadline: NullableTime
    progress: JsonColumn<unknown>
    result: JsonColumn<unknown>
    error: JsonColumn<unknown>
    queued_at: NullableTime
    delivered_at: NullableTime
    started_at: NullableTime
    completed_at: NullableTime
  }
  events: {
    id: Generated<number>
    xid: Generated<string>
    type: string
    at: Time
    command_id: string | null
    client_id: string | null
    attempt: number | null
    data: JsonColumn<Record<string, unknown>>
    client_event_id: string | null
  }
  feed_cursors: { name: string; xid: string; id: number; version: number }
  alerts: {
    id: string
    kind: string
    subject: string
    client_id: string | null
    command_id: string | null
    severity: string
    message: string
    details: JsonColumn<unknown>
    count: number
    opened_at: Time
    last_at: Time
    acknowledged_at: NullableTime
    acknowledged_by: string | null
    note: string | null
    resolved_at: NullableTime
    resolution: string | null
  }
}
