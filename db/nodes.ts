import { sql } from 'kysely'
import type { Db } from './connect.ts'

/** A process that serves this database. */
export interface Node {
  id: string
  /** For people: host and process id. */
  name: string
  /** Where its process id means something; null where that cannot be told. */
  processSpace: string | null
  processId: number
}

export interface OtherNode extends Node {
  /** Its lease is over. */
  expired: boolean
  /** It was there before the one that asks. */
  older: boolean
}

/** Holds the node's lease for so many seconds from now, on PostgreSQL's clock. Answers all other nodes that have a row. */
export async function renewNode(db: Db, node: Node, leaseSeconds: number): Promise<OtherNode[]> {
  const { rows } = await sql<{
    id: string
    name: string
    process_space: string | null
    process_id: number
    expired: boolean
    older: boolean
  }>`
    with mine as (
      insert into nodes (id, name, process_space, process_id, expires_at)
      values (${node.id}, ${node.name}, ${node.processSpace}, ${node.processId},
        clock_timestamp() + make_interval(secs => ${leaseSeconds}))
      on conflict (id) do update set expires_at = excluded.expires_at
      returning id, started_at
    )
    select n.id, n.name, n.process_space, n.process_id, n.expires_at <= clock_timestamp() as expired,
      (n.started_at, n.id) < (m.started_at, m.id) as older
    from mine m join nodes n on n.id <> m.id order by n.started_at, n.id`.execute(db)
  return rows.map((row) => ({
    id: row.id,
    name: row.name,
    processSpace: row.process_space,
    processId: row.process_id,
    expired: row.expired,
    older: row.older,
  }))
}

/** From here on their sessions are nobody's. A node that lives all the same comes back with its next renewal. */
export async function endNodes(db: Db, ids: string[]): Promise<void> {
  await db.deleteFrom('nodes').where('id', '=', sql<string>`any(${ids}::text[])`).execute()
}

/**
 * What all nodes of this database have in common and nobody else has: the same PostgreSQL server, and the same database in it.
 */
export async function databaseIdentity(db: Db): Promise<string> {
  const { rows } = await sql<{ identity: string }>`
    select (select system_identifier from pg_control_system())::text || '-' || oid as identity
    from pg_database where datname = current_database()`.execute(db)
  return (rows[0] as { identity: string }).identity
}
