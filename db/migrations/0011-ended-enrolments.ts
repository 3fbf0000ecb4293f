import { type Kysely, sql } from 'kysely'

/** An enrolment that is long over may go, and its clients stay. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    alter table clients drop constraint clients_enrolment_id_fkey;
    alter table clients add foreign key (enrolment_id) references enrolments (id) on delete set null;
    create index clients_enrolment on clients (enrolment_id) where enrolment_id is not null;
    create index enrolments_expires on enrolments (expires_at);
  `.execute(db)
}
