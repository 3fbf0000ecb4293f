import { type Kysely, sql } from 'kysely'

export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    -- Five events for each command: the order of the feed is the only order in which all of them are read.
    alter table events drop constraint events_pkey;
    drop index events_tail;
    alter table events add primary key (xid, id);
    -- One index for the events of a command, and for those of one of its clients: that is looked for in the index itself.
    drop index events_command, events_execution;
    create index events_command on events (command_id, id, client_id) where command_id is not null;
    -- One statement stores a command with its executions, and reads their clients to do so; one transaction removes both; clients stay.
    -- To prove it again for each row is a third of what a broadcast costs. See docs/decisions. Last: nobody can log in, claim or read
    -- an execution from here to the commit.
    alter table executions drop constraint executions_command_id_fkey, drop constraint executions_client_id_fkey;
  `.execute(db)
}
