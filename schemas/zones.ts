import { z } from 'zod'
import { Id } from './ids.ts'

/** A named group of clients; it exists while it has members. */
export const Zone = z.object({ zone: Id, clients: z.int(), online: z.int() })
export type Zone = z.infer<typeof Zone>
