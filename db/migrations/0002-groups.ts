import { type Kysely, sql } from 'kysely'

export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    -- What a preview showed, by the hash of its list: a command that is sent for that list can tell how it differs by now.
    create table target_previews (
      hash text primary key,
      client_ids text[] not null,
      created_at timestamptz not null default clock_timestamp()
    );
    -- HTTP clients are known by their key alone, and shown online only while they ping.
    create unique index clients_key on clients (key_hash) where deleted_at is null;
    alter table clients add column silent boolean not null default false;
    alter table principals add column deleted_at timestamptz;
    create index commands_zone on commands ((target ->> 'zone'), id) where target ->> 'kind' = 'zone';
    create index events_execution on events (command_id, client_id, id) where command_id is not null;
  `.execute(db)
}
