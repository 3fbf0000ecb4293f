import { z } from 'zod'
import type { Control } from '../../control/control.ts'
import { followCommand, followEvents } from '../../control/events/follow-events.ts'
import { EventType } from '../../schemas/events.ts'
import { CommandId, Id } from '../../schemas/ids.ts'
import { EventStream, eventStream, type StreamMessage } from '../event-stream.ts'
import { type Route, route } from '../route.ts'

/** `?types=execution.completed,execution.failed` */
const Types = z
  .string()
  .transform((text) => text.split(','))
  .pipe(z.array(EventType))

export function eventRoutes({ db, settings }: Control): Route[] {
  return [
    route({
      method: 'get',
      path: '/events',
      summary: 'Everything that happens, as server-sent events; Last-Event-ID resumes without a gap.',
      permission: 'command:read',
      query: z.object({ types: Types.optional(), zone: Id.optional(), clientId: Id.optional() }),
      responses: { 200: EventStream },
      async handle({ query, header, gone }) {
        const events = await followEvents(db, query, header('last-event-id'), gone)
        return eventStream(messages(events), settings.HTTP_HEARTBEAT_SECONDS)
      },
    }),
    route({
      method: 'get',
      path: '/commands/:id/stream',
      summary: "A command's events until it is settled; the last one is the command itself.",
      permission: 'command:read',
      params: z.object({ id: CommandId }),
      responses: { 200: EventStream },
      async handle({ params: { id }, header, gone }) {
        const events = await followCommand(db, id, header('last-event-id'), gone)
        return eventStream(messages(events), settings.HTTP_HEARTBEAT_SECONDS)
      },
    }),
  ]
}

type Followed = Awaited<ReturnType<typeof followCommand>> | Awaited<ReturnType<typeof followEvents>>

async function* messages(followed: Followed): AsyncGenerator<StreamMessage> {
  for await (const item of followed) {
    if ('settled' in item) yield { event: 'settled', data: item.settled }
    else yield { id: item.id, event: item.event.type, data: item.event }
  }
}
