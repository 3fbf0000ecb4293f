import { v7 as uuid } from 'uuid'
import type { Db } from '../../db/connect.ts'
import {
  deletePrincipal,
  insertPrincipal,
  insertToken,
  listPrincipals,
  listTokens,
  revokeToken,
} from '../../db/principals.ts'
import { AppError } from '../../schemas/errors.ts'
import type { Page, Paging } from '../../schemas/paging.ts'
import type { CreatePrincipal, CreateToken, ListedPrincipal, Token } from '../../schemas/principals.ts'
import type { Authenticator } from './authenticate.ts'
import { hashSecret, newSecret } from './secrets.ts'

interface AccessDeps {
  db: Db
  authenticator: Authenticator
}

export const readPrincipals = (db: Db, paging: Paging): Promise<Page<ListedPrincipal>> => listPrincipals(db, paging)
export const readTokens = (db: Db, paging: Paging): Promise<Page<Token>> => listTokens(db, paging)

/** A principal with its first token, which is answered once and kept only as a hash. Throws CONFLICT if the name is taken. */
export async function createPrincipal(
  deps: AccessDeps,
  body: CreatePrincipal,
): Promise<{ principal: ListedPrincipal; token: string }> {
  const principal = await insertPrincipal(deps.db, uuid(), body)
  if (!principal) throw new AppError('CONFLICT', `There already is, or was, a principal ${body.name}.`)
  const { token } = await createToken(deps, { principalId: principal.id, name: 'first' })
  return { principal, token }
}

/** Throws NOT_FOUND. */
export async function removePrincipal(deps: AccessDeps, id: string): Promise<void> {
  if (!(await deletePrincipal(deps.db, id))) throw new AppError('NOT_FOUND', `There is no principal ${id}.`)
  deps.authenticator.forgetPrincipals()
}

/** Throws NOT_FOUND if there is no such principal. */
export async function createToken(
  deps: AccessDeps,
  { principalId, name, expiresAt }: CreateToken,
): Promise<{ id: string; token: string }> {
  const id = uuid()
  const token = newSecret('sbt')
  const stored = await insertToken(deps.db, {
    id,
    principalId,
    name,
    hash: hashSecret(token),
    expiresAt: expiresAt ?? null,
  })
  if (!stored) throw new AppError('NOT_FOUND', `There is no principal ${principalId}.`)
  return { id, token }
}

/** It stops working at once. Throws NOT_FOUND. */
export async function removeToken(deps: AccessDeps, id: string): Promise<void> {
  if (!(await revokeToken(deps.db, id))) throw new AppError('NOT_FOUND', `There is no token ${id}.`)
  deps.authenticator.forgetPrincipals()
}
