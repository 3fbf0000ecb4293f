import { type CommandFacts, findCommand, listCommands } from '../../db/commands.ts'
import type { Db } from '../../db/connect.ts'
import { listTimeline } from '../../db/events.ts'
import { listExecutions } from '../../db/execution-reads.ts'
import type { Command, ListCommands } from '../../schemas/commands.ts'
import { AppError } from '../../schemas/errors.ts'
import type { Event } from '../../schemas/events.ts'
import type { Execution, Status } from '../../schemas/executions.ts'
import type { Page, Paging } from '../../schemas/paging.ts'
import { commandStatus } from './command-status.ts'

/** Throws NOT_FOUND. */
export async function readCommand(db: Db, id: string): Promise<Command> {
  const facts = await findCommand(db, id)
  if (!facts) throw new AppError('NOT_FOUND', `There is no command ${id}.`)
  return withStatus(facts)
}

/** Newest first. */
export async function readCommands(db: Db, filter: ListCommands, paging: Paging): Promise<Page<Command>> {
  const { items, next } = await listCommands(db, filter, paging)
  return { items: items.map(withStatus), next }
}

/** The command on each of its clients, by client id. Throws NOT_FOUND. */
export async function readExecutions(
  db: Db,
  id: string,
  filter: { status?: Status },
  paging: Paging,
): Promise<Page<Execution>> {
  await readCommand(db, id)
  return listExecutions(db, id, filter, paging)
}

/** Its events in order. Throws NOT_FOUND. */
export async function readTimeline(
  db: Db,
  id: string,
  filter: { clientId?: string },
  paging: Paging,
): Promise<Page<Event>> {
  await readCommand(db, id)
  return listTimeline(db, id, filter, paging)
}

const withStatus = (facts: CommandFacts): Command => ({ ...facts, status: commandStatus(facts) })
