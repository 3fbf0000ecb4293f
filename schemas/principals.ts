import { z } from 'zod'
import { Id, Instant, Timestamp } from './ids.ts'

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
  expiresAt: Instant.optional(),
})
export type CreateToken = z.infer<typeof CreateToken>

export const Token = z.object({
  id: z.uuid(),
  principalId: z.uuid(),
  principal: z.string(),
  name: z.string(),
  createdAt: Timestamp,
  expiresAt: Timestamp.optional(),
  /** To the minute. */
  lastUsedAt: Timestamp.optional(),
})
export type Token = z.infer<typeof Token>

/** What a principal may do where: everywhere, in a zone, or with one client. Its limits count what is sent by this grant. */
export const Grant = z.strictObject({
  scope: z.union([z.literal('*'), z.strictObject({ zone: Id }), z.strictObject({ clientId: Id })], {
    error: 'must be "*", {"zone": …} or {"clientId": …}',
  }),
  /** `*`: any action. */
  actions: z
    .array(z.union([z.literal('*'), Id], { error: 'must be the name of an action or "*"' }))
    .min(1)
    .max(200),
  /** Executions per day of DAY_TIME_ZONE: a group command counts once per target. */
  maxCommandsPerDay: z.int().min(0).max(1_000_000_000),
  /** Commands per minute: a group command counts as one. */
  commandsPerMinute: z.int().min(0).max(1_000_000),
})
export type Grant = z.infer<typeof Grant>

/** A grant's scope as one word, for counters and texts. */
export const scopeName = ({ scope }: Pick<Grant, 'scope'>): string =>
  scope === '*' ? '*' : 'zone' in scope ? `zone:${scope.zone}` : `client:${scope.clientId}`

/** All grants of a principal, replaced as a whole. */
export const Grants = z
  .array(Grant)
  .max(200)
  .superRefine((grants, ctx) => {
    const seen = new Set<string>()
    for (const [index, grant] of grants.entries()) {
      const name = scopeName(grant)
      if (seen.has(name)) ctx.addIssue({ code: 'custom', path: [index, 'scope'], message: `${name} is given twice` })
      seen.add(name)
    }
  })
