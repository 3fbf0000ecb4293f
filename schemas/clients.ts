import { z } from 'zod'
import { Id, Timestamp } from './ids.ts'
import { JsonValue } from './json.ts'

const MaxInFlight = z.int().min(1).max(1000)
const Metadata = z
  .record(z.string().max(200), JsonValue)
  .refine((value) => Buffer.byteLength(JSON.stringify(value)) <= 16_384, {
    message: 'must be at most 16384 bytes of JSON',
  })

export const Client = z.object({
  id: Id,
  name: z.string(),
  zones: z.array(Id),
  presence: z.enum(['online', 'offline']),
  presenceSince: Timestamp,
  lastSeenAt: Timestamp.optional(),
  disabled: z.boolean(),
  reported: z.record(z.string(), JsonValue).nullable(),
  maxInFlight: z.int(),
  metadata: z.record(z.string(), JsonValue),
  createdAt: Timestamp,
})
export type Client = z.infer<typeof Client>

export const CreateClient = z.strictObject({
  id: Id,
  name: z.string().min(1).max(200).optional(),
  zones: z.array(Id).max(100).optional(),
  maxInFlight: MaxInFlight.optional(),
  metadata: Metadata.optional(),
})
export type CreateClient = z.infer<typeof CreateClient>

export const UpdateClient = CreateClient.omit({ id: true }).refine((body) => Object.keys(body).length > 0, {
  message: 'give at least one of name, zones, maxInFlight, metadata',
})
export type UpdateClient = z.infer<typeof UpdateClient>

export const ListClients = z.object({
  zone: Id.optional(),
  presence: z.enum(['online', 'offline']).optional(),
  disabled: z.stringbool().optional(),
  q: z.string().min(1).max(200).optional(),
})
export type ListClients = z.infer<typeof ListClients>

/** The key is shown once and stored only as a hash. */
export const ClientKey = z.string().regex(/^sbk_[A-Za-z0-9_-]{43}$/, 'must be "sbk_" and 32 bytes as base64url')
export const CreatedClient = z.object({ client: Client, clientKey: ClientKey })
export const RotatedKey = z.object({ clientKey: ClientKey })

/** Without `graceSeconds` the old key stops working at once; with it, both work for so long. */
export const RotateKey = z.strictObject({ graceSeconds: z.int().min(0).max(2_592_000).optional() })
export type RotateKey = z.infer<typeof RotateKey>

export const QueueEntry = z.object({
  commandId: z.uuid(),
  action: Id,
  status: z.string(),
  attempt: z.int(),
  priority: z.int(),
  createdAt: Timestamp,
  expiresAt: Timestamp,
})

/** Retained on `clients/{clientId}/status`. `journalId` names the client's durable memory of what it ran. */
export const ClientStatus = z.looseObject({
  state: z.string().min(1).max(64),
  version: z.string().max(200).optional(),
  journalId: z.string().min(1).max(200).optional(),
})
export type ClientStatus = z.infer<typeof ClientStatus>

/** Retained on `clients/{clientId}/config`: the zones to subscribe to and the window. */
export const ClientConfig = z.object({ zones: z.array(Id), maxInFlight: z.int() })
export type ClientConfig = z.infer<typeof ClientConfig>
