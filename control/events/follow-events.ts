import { setTimeout as wait } from 'node:timers/promises'
import type { Db } from '../../db/connect.ts'
import { FEED_START, type FeedFilter, type FeedPosition, feedEnd, hasEventsAfter, readFeed } from '../../db/events.ts'
import type { Command } from '../../schemas/commands.ts'
import { AppError } from '../../schemas/errors.ts'
import type { Event } from '../../schemas/events.ts'
import { readCommand } from '../commands/read-commands.ts'

/** An event with the id that resumes the stream behind it. */
export interface FollowedEvent {
  id: string
  event: Event
}

const PAGE = 500
/** How long an event may wait to be noticed, milliseconds. */
const POLL_MS = 50

/**
 * Events as they are committed, behind `lastEventId` or from now on: no gap and no duplicate across reconnections that resume
 * behind the last id they got. Ends when `gone` is aborted. Throws INVALID_INPUT for an id that is none.
 */
export async function followEvents(
  db: Db,
  filter: FeedFilter,
  lastEventId: string | undefined,
  gone: AbortSignal,
): Promise<AsyncGenerator<FollowedEvent>> {
  return follow(db, filter, lastEventId === undefined ? await feedEnd(db) : parsePosition(lastEventId), gone)
}

/** A command's events from its creation on, then the command itself once it is settled. Throws NOT_FOUND. */
export async function followCommand(
  db: Db,
  id: string,
  lastEventId: string | undefined,
  gone: AbortSignal,
): Promise<AsyncGenerator<FollowedEvent | { settled: Command }>> {
  await readCommand(db, id)
  return followToTheEnd(db, id, lastEventId === undefined ? FEED_START : parsePosition(lastEventId), gone)
}

async function* follow(
  db: Db,
  filter: FeedFilter,
  from: FeedPosition,
  gone: AbortSignal,
): AsyncGenerator<FollowedEvent> {
  for (let position = from; !gone.aborted; ) {
    const { events, head } = await readFeed(db, position, filter, PAGE)
    yield* events.map(withId)
    if (head) position = head
    else await pause(gone)
  }
}

async function* followToTheEnd(
  db: Db,
  id: string,
  from: FeedPosition,
  gone: AbortSignal,
): AsyncGenerator<FollowedEvent | { settled: Command }> {
  for (let position = from; !gone.aborted; ) {
    const command = await readCommand(db, id)
    const { events, head } = await readFeed(db, position, { commandId: id }, PAGE)
    yield* events.map(withId)
    if (head) position = head
    else if (command.completedAt !== undefined && !(await hasEventsAfter(db, id, position)))
      return yield { settled: command }
    else await pause(gone)
  }
}

const withId = ({ position, ...event }: Event & { position: FeedPosition }): FollowedEvent => ({
  id: `${position.xid}-${position.id}`,
  event,
})

const pause = (gone: AbortSignal): Promise<void> => wait(POLL_MS, undefined, { signal: gone }).catch(() => undefined)

function parsePosition(text: string): FeedPosition {
  const match = /^(\d{1,19})-(\d{1,15})$/.exec(text)
  if (match) return { xid: match[1] as string, id: Number(match[2]) }
  const message = 'must be an id of this stream, like 742-1093'
  throw new AppError('INVALID_INPUT', `Last-Event-ID ${message}.`, [{ path: 'Last-Event-ID', message }])
}
