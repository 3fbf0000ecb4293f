import { type Kysely, sql } from 'kysely'

export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table enrolments (
      id uuid primary key,
      name text not null,
      code_hash bytea not null unique,
      zones text[] not null,
      id_prefix text,
      max_uses integer not null,
      uses integer not null default 0,
      created_by text not null,
      created_at timestamptz not null default clock_timestamp(),
      expires_at timestamptz not null,
      revoked_at timestamptz,
      check (uses between 0 and max_uses)
    );
    -- By which enrolment a client came, so that the repetition of a redemption is known as one; null: a principal registered it.
    alter table clients add column enrolment_id uuid references enrolments (id);
  `.execute(db)
}
