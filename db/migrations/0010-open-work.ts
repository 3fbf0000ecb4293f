import { type Kysely, sql } from 'kysely'

export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    -- An order of its own, by which it can be asked for: see client-work.ts.
    drop index executions_open;
    create index executions_open on executions (client_id, attempt)
      where status in ('queued', 'delivered', 'running', 'outcome_unknown');
  `.execute(db)
}
