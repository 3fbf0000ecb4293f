import { z } from 'zod'

/** Client ids, zones, action names and event types: 1 to 64 characters that are safe in a topic level, a URL and a log line. */
export const Id = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, 'must match [A-Za-z0-9][A-Za-z0-9._-]{0,63}')
  .meta({ description: 'Letters, digits, ".", "_" and "-", at most 64 characters' })

/** Command ids are UUIDv7: made by the server, ordered by time of creation. */
export const CommandId = z.uuid()

/** RFC 3339 in UTC, milliseconds. */
export const Timestamp = z.iso.datetime()
