import { z } from 'zod'
import type { Page } from '../schemas/paging.ts'
import { queryNumber } from './query-number.ts'

/** `?limit=` 1–200, default 50, and the opaque `?cursor=` of the page before. */
const Paging = z.object({
  limit: queryNumber(z.number().int().min(1).max(200)).default(50),
  cursor: z
    .base64url()
    .max(400)
    .optional()
    .transform((cursor) => (cursor === undefined ? undefined : Buffer.from(cursor, 'base64url').toString())),
})

/** A cursor that is used as a number or a uuid must be one. */
export const pagingBy = (key: z.ZodType<string>) =>
  Paging.refine(({ cursor }) => cursor === undefined || key.safeParse(cursor).success, {
    path: ['cursor'],
    message: 'is not a cursor of this list',
  })

export const listOf = <T extends z.ZodType>(item: T) =>
  z.object({ items: z.array(item), nextCursor: z.string().nullable() })

export const presentPage = <T>({ items, next }: Page<T>) => ({
  items,
  nextCursor: next === null ? null : Buffer.from(next).toString('base64url'),
})
