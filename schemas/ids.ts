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

const EARLIEST = Date.parse('0001-01-01T00:00:00Z')
const LATEST = Date.parse('9999-12-31T23:59:59.999Z')

/** RFC 3339 with any offset, in UTC from here on: PostgreSQL refuses offsets of 16 hours and more, and the year 0. */
export const Instant = z.iso
  .datetime({ offset: true, abort: true })
  .refine((text) => Date.parse(text) >= EARLIEST && Date.parse(text) <= LATEST, {
    message: 'must be in the years 1 to 9999 (UTC)',
    abort: true,
  })
  .overwrite((text) => new Date(text).toISOString())
