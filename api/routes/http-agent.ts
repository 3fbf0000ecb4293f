import { z } from 'zod'
import type { Control } from '../../control/control.ts'
import { ClientStatus } from '../../schemas/clients.ts'
import { AppError } from '../../schemas/errors.ts'
import { Status } from '../../schemas/executions.ts'
import { CommandId, Id } from '../../schemas/ids.ts'
import { JsonValue } from '../../schemas/json.ts'
import { Report } from '../../schemas/messages.ts'
import { createChannel } from '../channel.ts'
import { EventStream, eventStream, type StreamMessage } from '../event-stream.ts'
import { type Route, route } from '../route.ts'

const params = z.object({ id: CommandId })
const Reported = z.object({ commandId: CommandId, status: Status, attempt: z.int() })

/** The short form of a failure; a stack trace may come along and is not kept. */
const ErrorBody = z.object({
  message: z.string().max(8000),
  code: z.string().max(200).optional(),
  stack: z.string().optional(),
})

/** The door of clients that cannot speak MQTT: commands come on a stream, reports go out by PUT and POST. */
export function httpAgentRoutes({ httpSessions, refusals, settings }: Control): Route[] {
  async function report(clientId: string, commandId: string, body: Report) {
    const bytes = Buffer.byteLength(JSON.stringify(body))
    if (bytes > settings.MAX_PAYLOAD_BYTES) {
      throw new AppError(
        'PAYLOAD_TOO_LARGE',
        `The report has ${bytes} bytes; at most ${settings.MAX_PAYLOAD_BYTES} are taken, as over MQTT.`,
      )
    }
    const { after } = await httpSessions.report(clientId, commandId, body)
    return { status: 200, body: { commandId, status: after.status, attempt: after.attempt } }
  }

  function requireOwn(own: string, clientId: string): void {
    if (own === clientId) return
    refusals.login(own, `it asks for client ${clientId}`)
    throw new AppError('FORBIDDEN', `This key is not ${clientId}'s.`)
  }

  return [
    route({
      method: 'get',
      path: '/events/:clientId',
      summary: "The client's commands and cancels as server-sent events. One session per client, over MQTT or here.",
      permission: 'client',
      params: z.object({ clientId: Id }),
      query: z.object({ journalId: z.string().min(1).max(200).optional() }),
      responses: { 200: EventStream },
      async handle({ params: { clientId }, query, client, gone }) {
        requireOwn(client.id, clientId)
        const channel = createChannel<StreamMessage>()
        const stream = {
          write: (message: { type: string; id: string }) =>
            channel.push({ event: message.type, id: message.id, data: message }),
          close: channel.close,
        }
        const { ended } = await httpSessions.open(client, stream, query.journalId)
        gone.addEventListener('abort', channel.close)
        if (gone.aborted) channel.close()
        void channel.closed.then(ended)
        return eventStream(channel, settings.HTTP_HEARTBEAT_SECONDS)
      },
    }),
    route({
      method: 'post',
      path: '/clients/:clientId/ping',
      summary: 'The status of a client with an open stream, at least every 30 s: it is shown online while it pings.',
      permission: 'client',
      params: z.object({ clientId: Id }),
      body: ClientStatus.partial({ state: true }),
      responses: { 204: null },
      async handle({ params: { clientId }, client, body }) {
        requireOwn(client.id, clientId)
        await httpSessions.ping(clientId, { state: 'online', ...body })
        return { status: 204 }
      },
    }),
    route({
      method: 'put',
      path: '/commands/:id/status',
      summary: 'A report: the same as over MQTT.',
      permission: 'client',
      params,
      body: Report,
      responses: { 200: Reported },
      handle: ({ params: { id }, client, body }) => report(client.id, id, body),
    }),
    route({
      method: 'post',
      path: '/commands/:id/result',
      summary: 'Completed, with the body as its result.',
      permission: 'client',
      params,
      body: JsonValue,
      responses: { 200: Reported },
      handle: ({ params: { id }, client, body }) => report(client.id, id, { status: 'completed', result: body }),
    }),
    route({
      method: 'post',
      path: '/commands/:id/error',
      summary: 'Failed, and why.',
      permission: 'client',
      params,
      body: ErrorBody,
      responses: { 200: Reported },
      handle: ({ params: { id }, client, body }) =>
        report(client.id, id, { status: 'failed', error: { code: body.code ?? 'ERROR', message: body.message } }),
    }),
  ]
}
