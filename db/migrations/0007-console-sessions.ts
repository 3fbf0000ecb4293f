import { type Kysely, sql } from 'kysely'

export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    -- Browsers that logged in with a token: what their cookie says is kept only as a hash.
    create table console_sessions (
      id uuid primary key,
      token_id uuid not null references tokens (id),
      secret_hash bytea not null unique,
      created_at timestamptz not null default clock_timestamp(),
      expires_at timestamptz not null,
      last_used_at timestamptz not null default clock_timestamp()
    ) with (fillfactor = 80);
    create index console_sessions_token on console_sessions (token_id, created_at);
    create index console_sessions_expires on console_sessions (expires_at);
  `.execute(db)
}
