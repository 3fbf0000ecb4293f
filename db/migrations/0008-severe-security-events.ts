import { type Kysely, sql } from 'kysely'

export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    -- How many of count the alerts were told of.
    alter table security_events add column alerted bigint not null default 0;
    -- Alerts begin with this upgrade.
    update security_events set alerted = count where severity = 'critical';
    create index security_events_untold on security_events (kind, subject, minute) where severity = 'critical' and alerted < count;
  `.execute(db)
}
