import { v7 as uuid } from 'uuid'
import type { Db } from '../../db/connect.ts'
import { ensureToken, hasToken } from '../../db/principals.ts'
import { hashSecret, newSecret } from './secrets.ts'

/** Makes ADMIN_TOKEN valid; without it, at the very first start, makes a token and answers it, to be shown once. */
export async function bootstrapAdministrator(db: Db, adminToken: string | undefined): Promise<string | undefined> {
  if (adminToken === undefined && (await hasToken(db))) return undefined
  const token = adminToken ?? newSecret('sbt')
  await ensureToken(db, {
    id: uuid(),
    principalId: uuid(),
    principalName: 'admin',
    role: 'admin',
    name: 'bootstrap',
    hash: hashSecret(token),
  })
  return adminToken === undefined ? token : undefined
}
