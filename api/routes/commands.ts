import { z } from 'zod'
import { awaitCommand } from '../../control/commands/await-command.ts'
import { cancelCommand } from '../../control/commands/cancel-command.ts'
import { createCommand, previewCommand } from '../../control/commands/create-command.ts'
import { explainCommand } from '../../control/commands/explain-command.ts'
import { readCommand, readCommands, readExecutions, readTimeline } from '../../control/commands/read-commands.ts'
import { resolveExecution, retryCommand } from '../../control/commands/retry-command.ts'
import { updateCommand } from '../../control/commands/update-command.ts'
import type { Control } from '../../control/control.ts'
import {
  CancelCommand,
  CancelOutcome,
  Command,
  CommandPreview,
  CreateCommand,
  Explanation,
  IdempotencyKey,
  ListCommands,
  ResolveExecution,
  RetryCommand,
  RetryOutcome,
  UpdateCommand,
} from '../../schemas/commands.ts'
import { AppError } from '../../schemas/errors.ts'
import { Event } from '../../schemas/events.ts'
import { Execution, Status } from '../../schemas/executions.ts'
import { CommandId, Id } from '../../schemas/ids.ts'
import { listOf, pagingBy, presentPage } from '../paging.ts'
import { queryNumber } from '../query-number.ts'
import { rateLimitHeaders } from '../rate-limit.ts'
import { type Route, route } from '../route.ts'

const params = z.object({ id: CommandId })

export function commandRoutes(control: Control): Route[] {
  const { db, settings } = control
  const wait = queryNumber(z.number().min(0).max(settings.HTTP_WAIT_MAX_SECONDS)).optional()

  return [
    route({
      method: 'post',
      path: '/commands',
      summary: 'Send a command. Answered once it is stored; with ?wait once it is settled, or with the state so far.',
      permission: 'command:create',
      query: z.object({ wait }),
      body: CreateCommand,
      responses: { 200: Command, 201: Command },
      async handle(input) {
        const { body, query, actor } = input
        const key = parseIdempotencyKey(input.header('idempotency-key'))
        const id = control.commandInserts.newId()
        using waiting = query.wait ? control.watch.begin(id) : undefined
        const { command, replayed, limits } = await createCommand(control, actor, id, body, key)
        const created = replayed || !waiting ? undefined : { command, waiting }
        const current = query.wait ? await awaitCommand(control, command.id, query.wait, input.gone, created) : command
        const headers = {
          Location: `/api/commands/${command.id}`,
          ...(replayed ? { 'Idempotent-Replayed': 'true' } : {}),
          ...rateLimitHeaders(limits),
        }
        return { status: replayed ? 200 : 201, headers, body: current }
      },
    }),
    route({
      method: 'post',
      path: '/commands/preview',
      summary: 'Who would get a command, and who of its group would not; its hash can be sent as expectedTargets.',
      permission: 'command:create',
      body: CreateCommand,
      responses: { 200: CommandPreview },
      handle: async ({ body, actor }) => ({ status: 200, body: await previewCommand(control, actor, body) }),
    }),
    route({
      method: 'get',
      path: '/commands',
      summary: 'Commands, newest first.',
      permission: 'command:read',
      query: pagingBy(CommandId).and(ListCommands),
      responses: { 200: listOf(Command) },
      async handle({ query: { limit, cursor, ...filter } }) {
        return { status: 200, body: presentPage(await readCommands(db, filter, { limit, after: cursor })) }
      },
    }),
    route({
      method: 'get',
      path: '/commands/:id',
      summary: 'One command with the counts of its executions; with one target also its result.',
      permission: 'command:read',
      params,
      query: z.object({ wait }),
      responses: { 200: Command },
      async handle(input) {
        const { id } = input.params
        const { wait: seconds } = input.query
        const command = seconds ? await awaitCommand(control, id, seconds, input.gone) : await readCommand(db, id)
        return { status: 200, body: command }
      },
    }),
    route({
      method: 'get',
      path: '/commands/:id/executions',
      summary: 'The command on each of its clients.',
      permission: 'command:read',
      params,
      query: pagingBy(Id).and(z.object({ status: Status.optional() })),
      responses: { 200: listOf(Execution) },
      async handle({ params: { id }, query: { limit, cursor, status } }) {
        return { status: 200, body: presentPage(await readExecutions(db, id, { status }, { limit, after: cursor })) }
      },
    }),
    route({
      method: 'get',
      path: '/commands/:id/timeline',
      summary: "The command's events in order.",
      permission: 'command:read',
      params,
      query: pagingBy(z.string().regex(/^\d{1,15}$/)).and(z.object({ clientId: Id.optional() })),
      responses: { 200: listOf(Event) },
      async handle({ params: { id }, query: { limit, cursor, clientId } }) {
        return { status: 200, body: presentPage(await readTimeline(db, id, { clientId }, { limit, after: cursor })) }
      },
    }),
    route({
      method: 'get',
      path: '/commands/:id/explain',
      summary: 'Why each unfinished execution has not moved, in words and codes.',
      permission: 'command:read',
      params,
      responses: { 200: z.object({ items: z.array(Explanation) }) },
      async handle({ params: { id } }) {
        return { status: 200, body: { items: await explainCommand(control, id) } }
      },
    }),
    route({
      method: 'patch',
      path: '/commands/:id',
      summary: 'Change priority and expiry of what is still pending.',
      permission: 'command:create',
      params,
      body: UpdateCommand,
      responses: { 200: Command },
      handle: async ({ params: { id }, body, actor }) => ({
        status: 200,
        body: await updateCommand(db, actor, id, body),
      }),
    }),
    route({
      method: 'post',
      path: '/commands/:id/retry',
      summary: 'A new attempt of what failed, was rejected, expired or is unknown.',
      permission: 'command:create',
      params,
      body: RetryCommand,
      responses: { 200: RetryOutcome },
      handle: async ({ params: { id }, body, actor }) => ({
        status: 200,
        body: await retryCommand(control, actor, id, body),
      }),
    }),
    route({
      method: 'post',
      path: '/commands/:id/executions/:clientId/resolve',
      summary: 'End an unknown outcome by your word, or permit another run.',
      permission: 'command:create',
      params: params.extend({ clientId: Id }),
      body: ResolveExecution,
      responses: { 200: Command },
      async handle({ params: { id, clientId }, body, actor }) {
        await resolveExecution(control, actor, id, clientId, body)
        return { status: 200, body: await readCommand(db, id) }
      },
    }),
    route({
      method: 'post',
      path: '/commands/:id/cancel',
      summary: 'Withdraw what was not handed over; ask the client about the rest.',
      permission: 'command:cancel',
      params,
      body: CancelCommand,
      responses: { 200: CancelOutcome },
      async handle({ params: { id }, body, actor }) {
        return { status: 200, body: await cancelCommand(control, actor, id, body) }
      },
    }),
  ]
}

function parseIdempotencyKey(value: string | undefined): string | undefined {
  if (value === undefined) return undefined
  const parsed = IdempotencyKey.safeParse(value)
  if (parsed.success) return parsed.data
  const message = parsed.error.issues[0]?.message ?? 'is not valid'
  throw new AppError('INVALID_INPUT', `Idempotency-Key ${message}.`, [{ path: 'Idempotency-Key', message }])
}
