import { sql } from 'kysely'
import type { Page, Paging } from '../schemas/paging.ts'
import type { CreatePrincipal, ListedPrincipal, Role } from '../schemas/principals.ts'
import type { Audited } from './audit.ts'
import type { Db } from './connect.ts'
import { page } from './rows.ts'

/** Answers undefined if the name is taken: also by a deleted principal, whose commands still bear it. */
export async function insertPrincipal(
  db: Audited,
  id: string,
  principal: CreatePrincipal,
): Promise<ListedPrincipal | undefined> {
  const row = await db
    .insertInto('principals')
    .values({ id, ...principal })
    .onConflict((conflict) => conflict.column('name').doNothing())
    .returningAll()
    .executeTakeFirst()
  return row && toPrincipal(row)
}

export async function findPrincipal(db: Db, id: string): Promise<ListedPrincipal | undefined> {
  const row = await db
    .selectFrom('principals')
    .selectAll()
    .where('id', '=', id)
    .where('deleted_at', 'is', null)
    .executeTakeFirst()
  return row && toPrincipal(row)
}

export async function listPrincipals(db: Db, paging: Paging): Promise<Page<ListedPrincipal>> {
  let query = db.selectFrom('principals').selectAll().where('deleted_at', 'is', null)
  if (paging.after !== undefined) query = query.where('name', '>', paging.after)
  const found = await query
    .orderBy('name')
    .limit(paging.limit + 1)
    .execute()
  return page(found, paging.limit, (row) => row.name, toPrincipal)
}

/** Its tokens stop working with it. */
export async function deletePrincipal(db: Audited, id: string): Promise<void> {
  await db.updateTable('principals').set({ deleted_at: sql<Date>`clock_timestamp()` }).where('id', '=', id).execute()
}

const toPrincipal = (row: { id: string; name: string; role: string; created_at: Date }): ListedPrincipal => ({
  id: row.id,
  name: row.name,
  role: row.role as Role,
  createdAt: row.created_at.toISOString(),
})
