import { type Audited, audited, type ChangedBy } from '../../db/audit.ts'
import { type ClientChange, deleteClient, findClient, insertClient, updateClient } from '../../db/clients.ts'
import type { Db } from '../../db/connect.ts'
import { findUnsettledOfDeleted } from '../../db/executions.ts'
import type { AuditKind } from '../../schemas/audit.ts'
import type { Client, CreateClient, RotateKey, UpdateClient } from '../../schemas/clients.ts'
import { AppError } from '../../schemas/errors.ts'
import type { Settings } from '../../schemas/settings.ts'
import { type Actor, changedBy } from '../access/actor.ts'
import type { Authenticator } from '../access/authenticate.ts'
import { hashSecret, newSecret } from '../access/secrets.ts'
import type { Tell } from '../cluster/hints.ts'
import type { Statuses } from '../cluster/statuses.ts'
import type { Dispatch } from '../executions/dispatch.ts'
import type { Ledger } from '../executions/ledger.ts'
import { configure, type Sessions } from '../sessions/sessions.ts'
import type { Transport } from '../transport.ts'
import { clientNotFound } from './read-clients.ts'

export interface ClientDeps {
  db: Db
  settings: Settings
  authenticator: Authenticator
  transport: Transport
  sessions: Sessions
  dispatch: Dispatch
  ledger: Ledger
  statuses: Statuses
  /** Tells the other nodes, if there are any. */
  tell: Tell
}

/** Registers a client. The key is answered once and kept only as a hash. Throws CONFLICT if the id is taken. */
export async function createClient(
  deps: ClientDeps,
  actor: Actor,
  body: CreateClient,
): Promise<{ client: Client; clientKey: string }> {
  const clientKey = newSecret('sbk')
  return { client: await registerClient(deps, { by: changedBy(actor), client: body, clientKey }), clientKey }
}

export interface Registration {
  by: ChangedBy
  client: CreateClient
  clientKey: string
  /** By which it comes, if by one. `take` counts its use in the same transaction; what it throws, nothing is done. */
  enrolment?: { id: string; take(trx: Audited): Promise<void> }
}

/** Throws CONFLICT if the id is taken. */
export async function registerClient(
  deps: ClientDeps,
  { by, client: body, clientKey, enrolment }: Registration,
): Promise<Client> {
  // A deleted client's id may be used again: what was meant for the old device is nothing for the new one.
  await abandonOfDeleted(deps, body.id)
  const stored = {
    ...body,
    maxInFlight: body.maxInFlight ?? deps.settings.DEFAULT_MAX_IN_FLIGHT,
    enrolmentId: enrolment?.id ?? null,
  }
  const what = { kind: enrolment ? 'client.enrolled' : 'client.created', subject: subjectOf(body.id) } as const
  const client = await audited(deps.db, by, what, async (trx) => {
    await enrolment?.take(trx)
    const inserted = await insertClient(trx, stored, hashSecret(clientKey))
    if (!inserted) throw new AppError('CONFLICT', `There already is a client ${body.id}.`)
    const source = enrolment ? { enrolment: enrolment.id } : {}
    return { before: null, after: { ...governed(inserted), ...source }, result: inserted }
  })
  noteChange(deps, client.id)
  await deps.transport.retainStatus(client.id, { state: 'offline', since: client.presenceSince })
  await deps.transport.retainConfig(client.id, { zones: client.zones, maxInFlight: client.maxInFlight })
  return client
}

/** A live session learns of its new zones and window at once. Throws NOT_FOUND. */
export async function changeClient(deps: ClientDeps, actor: Actor, id: string, change: UpdateClient): Promise<Client> {
  const client = await update(deps, actor, id, 'client.updated', change)
  await tellConfig(deps, client)
  return client
}

/** A change of zones or window reaches the live session, the next login and the retained topic. */
export async function tellConfig(deps: ClientDeps, client: Client): Promise<void> {
  const config = { zones: client.zones, maxInFlight: client.maxInFlight }
  noteChange(deps, client.id)
  const session = deps.sessions.get(client.id)
  if (session) configure(session, config)
  await deps.transport.retainConfig(client.id, config)
  deps.dispatch.wake(session)
}

/**
 * The old key stops working at once, and live sessions that used it end; with a grace both happen when that is over. The key
 * before the old one stops working in any case. Throws NOT_FOUND.
 */
export async function rotateKey(
  deps: ClientDeps,
  actor: Actor,
  id: string,
  { graceSeconds = 0 }: RotateKey,
): Promise<string> {
  const clientKey = newSecret('sbk')
  await update(deps, actor, id, 'client.key_rotated', { keyHash: hashSecret(clientKey), graceSeconds })
  if (graceSeconds === 0) disconnect(deps, id, 'its key was rotated')
  return clientKey
}

/** A disabled client cannot connect and is no target; what it was handed stays for its report. Throws NOT_FOUND. */
export async function setDisabled(deps: ClientDeps, actor: Actor, id: string, disabled: boolean): Promise<Client> {
  const client = await update(deps, actor, id, disabled ? 'client.disabled' : 'client.enabled', { disabled })
  if (disabled) disconnect(deps, id, 'it was disabled')
  return client
}

/** Soft: history stays. What was never handed out is cancelled, the rest cannot be known. Throws NOT_FOUND. */
export async function removeClient(deps: ClientDeps, actor: Actor, id: string): Promise<void> {
  await audited(deps.db, changedBy(actor), { kind: 'client.deleted', subject: subjectOf(id) }, async (trx) => {
    const before = await findClient(trx, id)
    if (!before || !(await deleteClient(trx, id))) throw clientNotFound(id)
    return { before: governed(before), after: null, result: undefined }
  })
  noteChange(deps, id)
  disconnect(deps, id, 'it was deleted')
  await abandonOfDeleted(deps, id)
  await deps.transport.forget(id)
}

const ABANDON_BATCH = 1000

/** Settles what deleted clients left behind: of one, or of all that are found. */
export async function abandonOfDeleted(
  { db, ledger }: Pick<ClientDeps, 'db' | 'ledger'>,
  id: string | null,
): Promise<void> {
  for (;;) {
    const unsettled = await findUnsettledOfDeleted(db, id, ABANDON_BATCH)
    await Promise.all(unsettled.map((key) => ledger.apply(key, { type: 'abandon' }, 'reject')))
    if (unsettled.length < ABANDON_BATCH) return
  }
}

/** Every connection that a client has here: its session, over whichever transport, and its report connections. */
export function disconnect(deps: Pick<ClientDeps, 'sessions' | 'transport'>, id: string, why: string): void {
  const session = deps.sessions.get(id)
  if (session) void session.outlet.close(session, why)
  deps.transport.disconnect(id, why)
}

async function update(
  deps: ClientDeps,
  actor: Actor,
  id: string,
  kind: AuditKind,
  change: ClientChange,
): Promise<Client> {
  const client = await audited(deps.db, changedBy(actor), { kind, subject: subjectOf(id) }, async (trx) => {
    const before = await findClient(trx, id)
    const after = before && (await updateClient(trx, id, change))
    if (!before || !after) throw clientNotFound(id)
    // That there is a new key is what can be told of it.
    const key = change.keyHash ? { graceSeconds: change.graceSeconds ?? 0 } : {}
    return { before: governed(before), after: { ...governed(after), ...key }, result: after }
  })
  noteChange(deps, id)
  return client
}

/** What was known of the client is out of date, here and on the other nodes. */
function noteChange(deps: ClientDeps, id: string): void {
  deps.authenticator.forgetClient(id)
  deps.statuses.touch(id)
  deps.tell('client', { clientId: id })
}

export const subjectOf = (clientId: string): string => `client:${clientId}`

/** What principals decide about a client, as the audit keeps it. */
export const governed = ({ name, zones, disabled, maxInFlight, metadata }: Client) => ({
  name,
  zones,
  disabled,
  maxInFlight,
  metadata,
})
