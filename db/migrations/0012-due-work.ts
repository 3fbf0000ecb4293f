import { type Kysely, sql } from 'kysely'

export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    -- "attempt > 0" is always true, and only what asks for due work says it: while statistics of a quiet hour call these indices
    -- empty, PostgreSQL would read all of one for each client whose work is asked for.
    drop index executions_expiry;
    create index executions_expiry on executions (expires_at) where status = 'pending' and attempt > 0;
    drop index executions_deadline;
    create index executions_deadline on executions (deadline) where status in ('queued', 'delivered', 'running') and attempt > 0;
  `.execute(db)
}
