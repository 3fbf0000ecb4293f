import { z } from 'zod'
import { Id, Timestamp } from './ids.ts'

export const Role = z.enum(['admin', 'operator', 'technician', 'viewer'])
export type Role = z.infer<typeof Role>

/** A person or service that calls the API; over MQTT it logs in with its name and a token. */
export const Principal = z.object({ id: z.uuid(), name: Id, role: Role })
export type Principal = z.infer<typeof Principal>

export const ListedPrincipal = Principal.extend({ createdAt: Timestamp })
export type ListedPrincipal = z.infer<typeof ListedPrincipal>

export const CreatePrincipal = z.strictObject({ name: Id, role: Role })
export type CreatePrincipal = z.infer<typeof CreatePrincipal>

/** The secret is shown once and stored only as a hash. */
const TokenSecret = z.string().regex(/^sbt_[A-Za-z0-9_-]{43}$/)
export const CreatedPrincipal = z.object({ principal: ListedPrincipal, token: TokenSecret })
export const CreatedToken = z.object({ id: z.uuid(), token: TokenSecret })

export const CreateToken = z.strictObject({
  principalId: z.uuid(),
  name: z.string().min(1).max(200),
  expiresAt: z.iso.datetime({ offset: true }).optional(),
})
export type CreateToken = z.infer<typeof CreateToken>

export const Token = z.object({
  id: z.uuid(),
  principalId: z.uuid(),
  principal: z.string(),
  name: z.string(),
  createdAt: Timestamp,
  expiresAt: Timestamp.optional(),
})
export type Token = z.infer<typeof Token>
