import { type Kysely, sql } from 'kysely'

export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    -- The processes that serve this database. A row whose time is over is a node that died, or that cannot reach PostgreSQL.
    create table nodes (
      id text primary key,
      -- host and process id, for people
      name text not null,
      -- where its process id can be looked up, and that id; null where that cannot be told
      process_space text,
      process_id integer not null,
      started_at timestamptz not null default clock_timestamp(),
      expires_at timestamptz not null
    );
    -- The session that published what is in reported: nobody else's word is retained for a session.
    alter table clients add column reported_epoch bigint;
  `.execute(db)
}
