import { v7 as uuid } from 'uuid'
import { audited } from '../../db/audit.ts'
import type { Db } from '../../db/connect.ts'
import { ensureToken, findTokens, hasToken } from '../../db/tokens.ts'
import { THE_SERVER } from './actor.ts'
import { hashSecret, newSecret } from './secrets.ts'

/** Makes ADMIN_TOKEN valid; without it, at the very first start, makes a token and answers it, to be shown once. */
export async function bootstrapAdministrator(db: Db, adminToken: string | undefined): Promise<string | undefined> {
  if (adminToken === undefined && (await hasToken(db))) return undefined
  const token = adminToken ?? newSecret('sbt')
  const hash = hashSecret(token)
  if ((await findTokens(db, [hash])).length > 0) return undefined
  const id = uuid()
  const first = { id, principalId: uuid(), principalName: 'admin', role: 'admin', name: 'bootstrap', hash } as const
  await audited(db, THE_SERVER, { kind: 'token.created', subject: `token:${id}` }, async (trx) => {
    await ensureToken(trx, first)
    return { before: null, after: { principal: 'admin', name: 'bootstrap', expiresAt: null }, result: undefined }
  })
  return adminToken === undefined ? token : undefined
}
