import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { Load } from './load.ts'
import type { Devices, Evidence, JournalEntry, LedgerEvent, LedgerExecution } from './oracle.ts'
import { judge } from './oracle.ts'
import type { PlainDevice } from './plain-device.ts'
import { Violations } from './scenario.ts'
import type { Stand } from './stand.ts'
import { type Effect, readLines } from './work.ts'

export interface Seen {
  load: Pick<Load, 'accepted'>
  plain?: PlainDevice[]
  devices: Devices
  /** What else must hold in this scenario: each line is something that does not. */
  also?(evidence: Evidence): Iterable<string>
}

/** Gathers what can be seen from outside and throws what does not hold; answers what there was. */
export async function judgeStand(
  stand: Stand,
  seen: Seen,
): Promise<{ executions: number; effects: number; unknown: number }> {
  const evidence = await gather(stand, seen)
  const wrong = [...judge(evidence), ...(seen.also?.(evidence) ?? [])]
  if (wrong.length > 0) throw new Violations(wrong)
  const unknown = evidence.executions.filter(({ status }) => status === 'outcome_unknown').length
  return { executions: evidence.executions.length, effects: evidence.effects.length, unknown }
}

async function gather(stand: Stand, { load, plain = [], devices }: Seen): Promise<Evidence> {
  const folder = join(stand.directory, 'devices')
  const files = readdirSync(folder)
  return {
    accepted: load.accepted,
    stored: await stand.sql<Evidence['stored'][number]>(
      `select command_id as id, key from idempotency_keys
       union all select id, 'none:' || id from commands c
         where not exists (select 1 from idempotency_keys k where k.command_id = c.id)`,
    ),
    executions: await stand.sql<LedgerExecution & Record<string, unknown>>(
      `select e.command_id as "commandId", e.client_id as "clientId", e.status, e.attempt, c.delivery,
         e.error ->> 'code' as "errorCode"
       from executions e join commands c on c.id = e.command_id`,
    ),
    events: await stand.sql<LedgerEvent & Record<string, unknown>>(
      `select id::integer, type, command_id as "commandId", client_id as "clientId", attempt, data ->> 'status' as reported,
         data -> 'error' ->> 'code' as "errorCode"
       from events where command_id is not null and client_id is not null order by id`,
    ),
    journals: files.filter((name) => name.endsWith('.sqlite')).flatMap((name) => readJournal(folder, name)),
    acknowledged: plain.flatMap((device) => device.acknowledged),
    effects: files.filter((name) => name.endsWith('.jsonl')).flatMap((name) => readLines<Effect>(join(folder, name))),
    devices,
  }
}

/** Any SQLite tool can read a journal, also while its agent runs. A client that has several has a name for each, after an @. */
function readJournal(folder: string, name: string): JournalEntry[] {
  const journal = new DatabaseSync(join(folder, name), { readOnly: true })
  try {
    const rows = journal.prepare('select command_id, attempt, state, reported from attempts').all()
    return rows.map((row) => ({
      clientId: name.slice(0, -'.sqlite'.length).split('@')[0] as string,
      id: String(row.command_id),
      attempt: Number(row.attempt),
      state: String(row.state),
      reported: row.reported === 1,
    }))
  } finally {
    journal.close()
  }
}
