import { z } from 'zod'
import { Client, ClientKey } from './clients.ts'
import { Id, Timestamp } from './ids.ts'

/** How the ids of an enrolment's clients begin; what follows still has room. */
const IdPrefix = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,47}$/, 'must match [A-Za-z0-9][A-Za-z0-9._-]{0,47}')

/** A code with which new devices obtain their id and key. Its secret is shown once and stored only as a hash. */
export const Enrolment = z.object({
  id: z.uuid(),
  name: z.string(),
  /** Of the clients that are made by it. */
  zones: z.array(Id),
  idPrefix: z.string().optional(),
  maxUses: z.int(),
  uses: z.int(),
  createdBy: z.string(),
  createdAt: Timestamp,
  expiresAt: Timestamp,
})
export type Enrolment = z.infer<typeof Enrolment>

export const CreateEnrolment = z.strictObject({
  name: z.string().min(1).max(200).optional(),
  zones: z.array(Id).max(100).optional(),
  idPrefix: IdPrefix.optional(),
  maxUses: z.int().min(1).max(100_000).optional(),
  ttlSeconds: z.int().min(1).max(31_536_000).optional(),
})
export type CreateEnrolment = z.infer<typeof CreateEnrolment>

const CODE = /sbe_[A-Za-z0-9_-]{43}/
export const CreatedEnrolment = z.object({
  enrolment: Enrolment,
  code: z.string().regex(new RegExp(`^${CODE.source}$`)),
})
export type CreatedEnrolment = z.infer<typeof CreatedEnrolment>

/** `clientKey`: made by the device (`sbk_` and 32 random bytes as base64url), so that a repetition is known as one. */
export const RedeemEnrolment = z
  .strictObject({
    code: z.string().min(1).max(200),
    clientId: Id.optional(),
    clientKey: ClientKey.optional(),
  })
  // Both would make a valid id, which everybody may read.
  .refine(({ code, clientId, clientKey }) => clientId === undefined || (clientId !== code && clientId !== clientKey), {
    path: ['clientId'],
    message: 'is a secret: give a name',
  })
export type RedeemEnrolment = z.infer<typeof RedeemEnrolment>

export const RedeemedEnrolment = z.object({ client: Client, clientKey: ClientKey })
export type RedeemedEnrolment = z.infer<typeof RedeemedEnrolment>

/** Where to redeem which code. The fragment of a URL is sent to no server. */
export interface EnrolmentLink {
  /** Of the server, without /api and without a trailing slash. */
  url: string
  code: string
}

/** The text of the QR code: `https://devices.example.com/#sbe_…`. */
export const formatEnrolmentLink = ({ url, code }: EnrolmentLink): string => `${url.replace(/\/+$/, '')}/#${code}`

/** Undefined if it is no such link. */
export function parseEnrolmentLink(text: string): EnrolmentLink | undefined {
  const [, url, code] = new RegExp(`^(https?://[^#?]+?)/*#(${CODE.source})$`, 'i').exec(text) ?? []
  return url !== undefined && code !== undefined && URL.canParse(url) ? { url, code } : undefined
}
