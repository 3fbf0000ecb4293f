import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { Execution } from '../../schemas/executions.ts'
import type { Api } from '../api-client.ts'
import { DEVICES } from './devices.ts'
import { executionsOf, type Played } from './scenes.ts'

interface JournalEntry {
  clientId: string
  commandId: string
  attempt: number
  state: string
  reported: number
  result: string | null
}

interface Verdict {
  executions: number
  completed: number
  effects: number
  /** Where the ledger, the journals and the effects do not agree; empty if the demo is proved. */
  faults: string[]
}

/** What the devices themselves kept, from their journals (node:sqlite, read while they run). */
export function readJournals(directory: string): JournalEntry[] {
  return DEVICES.flatMap(({ clientId }) => {
    const journal = new DatabaseSync(join(directory, `${clientId}.sqlite`), { readOnly: true })
    const entries = journal
      .prepare('select command_id as commandId, attempt, state, reported, result from attempts')
      .all() as unknown as Omit<JournalEntry, 'clientId'>[]
    journal.close()
    return entries.map((entry) => ({ clientId, ...entry }))
  })
}

/** Compares, for every execution, what the ledger says, what the device's journal says, and what the device really did. */
export async function judge(api: Api, played: Played[], directory: string): Promise<Verdict> {
  const journals = readJournals(directory)
  const effects = DEVICES.flatMap(({ clientId }) => readEffects(directory, clientId))
  const faults: string[] = []
  let executions = 0
  let completed = 0
  for (const one of played) {
    const { items } = await executionsOf(api, one.command.id)
    const clientIds = items.map(({ clientId }) => clientId).sort()
    if (clientIds.join() !== [...one.clientIds].sort().join())
      faults.push(`${one.label}: the ledger lists ${clientIds}`)
    for (const execution of items) {
      executions++
      if (execution.status === 'completed') completed++
      const { clientId, commandId } = execution
      const entries = journals.filter((entry) => entry.clientId === clientId && entry.commandId === commandId)
      const done = effects.filter((line) => line.startsWith(`${clientId} ${commandId} `))
      faults.push(...faultsOf(one, execution, entries, done).map((fault) => `${one.label}, ${clientId}: ${fault}`))
    }
  }
  // Nothing ran that the ledger does not know.
  if (journals.length !== executions)
    faults.push(`${journals.length} runs in the journals, ${executions} in the ledger`)
  return { executions, completed, effects: effects.length, faults }
}

function faultsOf(one: Played, execution: Execution, entries: JournalEntry[], done: string[]): string[] {
  const [entry] = entries
  const { status, attempt, result } = execution
  const expected = status === 'completed' ? done.length === one.effects : done.length < one.effects
  const checks: [boolean, string][] = [
    [status === one.outcome, `the ledger says ${status}, expected ${one.outcome}`],
    [entries.length === 1, `the journal has ${entries.length} attempts`],
    [entry?.state === status, `the journal says ${entry?.state}, the ledger ${status}`],
    [entry?.attempt === attempt, `the journal says attempt ${entry?.attempt}, the ledger ${attempt}`],
    [entry?.reported === 1, 'the journal says that the outcome was not acknowledged'],
    [
      (entry?.result ?? undefined) === (result === undefined ? undefined : JSON.stringify(result)),
      `the journal says ${entry?.result}, the ledger ${JSON.stringify(result)}`,
    ],
    [new Set(done).size === done.length, 'an effect happened twice'],
    [expected, `${status} with ${done.length} of ${one.effects} effects`],
  ]
  return checks.filter(([holds]) => !holds).map(([, fault]) => fault)
}

/** `<clientId> <commandId> <attempt> <what>`, one per thing done. */
function readEffects(directory: string, clientId: string): string[] {
  const file = join(directory, `${clientId}.effects`)
  if (!existsSync(file)) return []
  const lines = readFileSync(file, 'utf8').split('\n').filter(Boolean)
  return lines.map((line) => `${clientId} ${line}`)
}
