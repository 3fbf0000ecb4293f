import { type Kysely, sql } from 'kysely'

export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create sequence session_epochs;

    create table clients (
      id text primary key,
      name text not null,
      key_hash bytea not null,
      disabled boolean not null default false,
      max_in_flight integer not null,
      metadata jsonb not null default '{}',
      -- the live session: its number from session_epochs and the node that holds its socket; null when offline
      session_epoch bigint,
      session_node text,
      presence_since timestamptz not null default clock_timestamp(),
      last_seen_at timestamptz,
      -- the last status the client published
      reported jsonb,
      created_at timestamptz not null default clock_timestamp(),
      deleted_at timestamptz
    );

    create table zone_members (
      zone text not null,
      client_id text not null references clients (id),
      primary key (zone, client_id)
    );
    create index zone_members_client on zone_members (client_id);

    create table actions (
      name text primary key,
      payload_schema jsonb,
      delivery text not null check (delivery in ('at_least_once', 'at_most_once')),
      start_timeout_seconds integer,
      timeout_seconds integer,
      ttl_seconds integer,
      max_retries integer,
      priority smallint,
      description text,
      updated_at timestamptz not null default clock_timestamp()
    );

    create table principals (
      id uuid primary key,
      name text not null unique,
      role text not null,
      created_at timestamptz not null default clock_timestamp()
    );

    create table tokens (
      id uuid primary key,
      principal_id uuid not null references principals (id),
      name text not null,
      token_hash bytea not null unique,
      created_at timestamptz not null default clock_timestamp(),
      expires_at timestamptz,
      revoked_at timestamptz
    );

    create table commands (
      id uuid primary key,
      target jsonb not null,
      action text not null,
      -- json, not jsonb: the device gets the keys in the order in which they were sent
      payload json,
      priority smallint not null,
      delivery text not null,
      start_timeout_seconds integer not null,
      timeout_seconds integer not null,
      max_retries integer not null,
      total integer not null,
      excluded jsonb not null default '[]',
      created_by text not null,
      created_at timestamptz not null,
      not_before timestamptz,
      expires_at timestamptz not null
    );
    create index commands_action on commands (action, id);

    create table idempotency_keys (
      principal_id uuid not null references principals (id),
      key text not null,
      request_hash bytea not null,
      command_id uuid not null,
      created_at timestamptz not null,
      primary key (principal_id, key)
    );
    create index idempotency_keys_age on idempotency_keys (created_at);

    -- One row per command and client. Position, hand-overs and doubt are explained in control/executions/lifecycle.ts.
    create table executions (
      command_id uuid not null references commands (id),
      client_id text not null references clients (id),
      status text not null,
      attempt integer not null,
      version integer not null default 0,
      priority smallint not null,
      not_before timestamptz,
      expires_at timestamptz not null,
      epoch bigint,
      handovers jsonb not null default '[]',
      silent_attempts integer[] not null default '{}',
      completed_before jsonb,
      cancel_requested_at timestamptz,
      cancel_reason text,
      deadline timestamptz,
      progress json,
      result json,
      error json,
      queued_at timestamptz,
      delivered_at timestamptz,
      started_at timestamptz,
      completed_at timestamptz,
      primary key (command_id, client_id)
    ) with (fillfactor = 80);
    -- Dispatch and timers look at unsettled work only: finished work must not slow the present.
    create index executions_pending on executions (client_id, priority desc, command_id) where status = 'pending';
    create index executions_open on executions (client_id)
      where status in ('queued', 'delivered', 'running', 'outcome_unknown');
    create index executions_expiry on executions (expires_at) where status = 'pending';
    create index executions_due on executions (not_before) where status = 'pending' and not_before is not null;
    create index executions_deadline on executions (deadline) where status in ('queued', 'delivered', 'running');
    create index executions_client on executions (client_id, command_id desc);

    create table events (
      id bigint generated always as identity primary key,
      -- (xid, id) is the order in which a tail can read without a gap: see docs/decisions
      xid xid8 not null default pg_current_xact_id(),
      type text not null,
      at timestamptz not null default clock_timestamp(),
      command_id uuid,
      client_id text,
      attempt integer,
      data jsonb not null default '{}',
      -- the id that a client gave its own event: a repetition is stored once
      client_event_id text
    );
    create index events_tail on events (xid, id);
    create index events_command on events (command_id, id) where command_id is not null;
    create unique index events_client_event on events (client_id, client_event_id) where client_event_id is not null;
  `.execute(db)
}
