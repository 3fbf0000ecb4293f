import { sql } from 'kysely'
import type { Db } from './connect.ts'
import { list } from './rows.ts'

/**
 * Notes that these tokens, or sessions, were used now, unless that was noted a moment ago. Whoever changes one at this moment is
 * not waited for.
 */
export async function storeLastUse(
  db: Db,
  table: 'tokens' | 'console_sessions',
  ids: string[],
  exactSeconds: number,
): Promise<void> {
  await sql`
    with used as (
      select id from ${sql.table(table)} where id = any(${list('uuid', ids)})
        and (last_used_at is null or last_used_at < clock_timestamp() - make_interval(secs => ${exactSeconds}))
      order by id for no key update skip locked
    )
    update ${sql.table(table)} t set last_used_at = clock_timestamp() from used u where t.id = u.id`.execute(db)
}
