import { type RawBuilder, sql } from 'kysely'

// The unsettled executions of one client, as subqueries. They are asked for in the order of the partial index that has just these:
// without an order PostgreSQL, as long as its statistics are young, would just as soon go through all that the client ever had.

/** Waiting, in the order in which they will be sent. */
export const pendingOf = (clientId: RawBuilder<unknown>): RawBuilder<unknown> => sql`(
  select * from executions where client_id = ${clientId} and status = 'pending' order by priority desc, command_id offset 0)`

/** Handed over and not over: what fills the window. */
export const openOf = (clientId: RawBuilder<unknown>): RawBuilder<unknown> => sql`(
  select * from executions where client_id = ${clientId} and status in ('queued', 'delivered', 'running') order by attempt offset 0)`

/** The same, and what nobody can tell the outcome of. */
export const undecidedOf = (clientId: RawBuilder<unknown>): RawBuilder<unknown> => sql`(
  select * from executions where client_id = ${clientId} and status in ('queued', 'delivered', 'running', 'outcome_unknown')
  order by attempt offset 0)`
