import { v7 as uuid } from 'uuid'
import { audited } from '../../db/audit.ts'
import type { Db } from '../../db/connect.ts'
import { findGrants, replaceGrants } from '../../db/grants.ts'
import { deletePrincipal, findPrincipal, insertPrincipal, listPrincipals } from '../../db/principals.ts'
import { findToken, insertToken, listTokens, revokeToken } from '../../db/tokens.ts'
import { AppError } from '../../schemas/errors.ts'
import type { Page, Paging } from '../../schemas/paging.ts'
import type { CreatePrincipal, CreateToken, Grant, ListedPrincipal, Token } from '../../schemas/principals.ts'
import type { Tell } from '../cluster/hints.ts'
import { type Actor, changedBy } from './actor.ts'
import type { Authenticator } from './authenticate.ts'
import type { Logins } from './logins.ts'
import { isScoped } from './permissions.ts'
import { hashSecret, newSecret } from './secrets.ts'

interface AccessDeps {
  db: Db
  authenticator: Authenticator
  logins: Logins
  /** Tells the other nodes, if there are any. */
  tell: Tell
}

export const readPrincipals = (db: Db, paging: Paging): Promise<Page<ListedPrincipal>> => listPrincipals(db, paging)
export const readTokens = (db: Db, paging: Paging): Promise<Page<Token>> => listTokens(db, paging)

/** A principal with its first token, which is answered once and kept only as a hash. Throws CONFLICT if the name is taken. */
export async function createPrincipal(
  { db }: AccessDeps,
  actor: Actor,
  body: CreatePrincipal,
): Promise<{ principal: ListedPrincipal; token: string }> {
  const what = { kind: 'principal.created', subject: `principal:${body.name}` } as const
  return audited(db, changedBy(actor), what, async (trx) => {
    const principal = await insertPrincipal(trx, uuid(), body)
    if (!principal) throw new AppError('CONFLICT', `There already is, or was, a principal ${body.name}.`)
    const id = uuid()
    const token = newSecret('sbt')
    const stored = { id, principalId: principal.id, name: 'first', hash: hashSecret(token), expiresAt: null }
    await insertToken(trx, stored)
    return { before: null, after: { ...body, id: principal.id, token: id }, result: { principal, token } }
  })
}

/** Its tokens stop working at once, and what was opened with them ends. Throws NOT_FOUND. */
export async function removePrincipal(
  { db, authenticator, logins, tell }: AccessDeps,
  actor: Actor,
  id: string,
): Promise<void> {
  const { name } = await requirePrincipal(db, id)
  await audited(db, changedBy(actor), { kind: 'principal.deleted', subject: `principal:${name}` }, async (trx) => {
    const { role } = await requirePrincipal(trx, id)
    await deletePrincipal(trx, id)
    return { before: { name, role, id }, after: null, result: undefined }
  })
  authenticator.forgetPrincipals()
  tell('access', {})
  logins.principalEnded(id, 'its principal was deleted')
}

/** Throws NOT_FOUND if there is no such principal. */
export async function createToken(
  { db }: AccessDeps,
  actor: Actor,
  { principalId, name, expiresAt: given }: CreateToken,
): Promise<{ id: string; token: string }> {
  const expiresAt = given ?? null
  const id = uuid()
  const token = newSecret('sbt')
  return audited(db, changedBy(actor), { kind: 'token.created', subject: `token:${id}` }, async (trx) => {
    const principal = await insertToken(trx, { id, principalId, name, hash: hashSecret(token), expiresAt })
    if (principal === undefined) throw noPrincipal(principalId)
    return { before: null, after: { principal, name, expiresAt }, result: { id, token } }
  })
}

/** It stops working at once, and what was opened with it ends. Throws NOT_FOUND. */
export async function removeToken(
  { db, authenticator, logins, tell }: AccessDeps,
  actor: Actor,
  id: string,
): Promise<void> {
  await audited(db, changedBy(actor), { kind: 'token.revoked', subject: `token:${id}` }, async (trx) => {
    const token = await findToken(trx, id)
    if (!token) throw new AppError('NOT_FOUND', `There is no token ${id}.`)
    await revokeToken(trx, id)
    const { principal, name, expiresAt = null } = token
    return { before: { principal, name, expiresAt }, after: null, result: undefined }
  })
  authenticator.forgetPrincipals()
  tell('access', {})
  logins.tokenEnded(id, 'its token was revoked')
}

/** Throws NOT_FOUND. */
export async function readGrants(db: Db, principalId: string): Promise<Grant[]> {
  const grants = await findGrants(db, principalId)
  if (!grants) throw noPrincipal(principalId)
  return grants
}

/** All grants at once, in force with the next request. Throws NOT_FOUND, CONFLICT if they would mean nothing for its role. */
export async function putGrants(
  { db, authenticator, tell }: AccessDeps,
  actor: Actor,
  principalId: string,
  grants: Grant[],
): Promise<Grant[]> {
  const { name, role } = await requirePrincipal(db, principalId)
  if (grants.length > 0 && !isScoped(role)) {
    throw new AppError('CONFLICT', `Grants would change nothing for ${name}: its role is ${role}.`)
  }
  const what = { kind: 'grants.replaced', subject: `principal:${name}` } as const
  const stored = await audited(db, changedBy(actor), what, async (trx) => {
    const before = await readGrants(trx, principalId)
    await replaceGrants(trx, principalId, grants)
    return { before: { grants: before }, after: { grants }, result: grants }
  })
  authenticator.forgetPrincipals()
  tell('access', {})
  return stored
}

async function requirePrincipal(db: Db, id: string): Promise<ListedPrincipal> {
  const principal = await findPrincipal(db, id)
  if (!principal) throw noPrincipal(id)
  return principal
}

const noPrincipal = (id: string): AppError => new AppError('NOT_FOUND', `There is no principal ${id}.`)
