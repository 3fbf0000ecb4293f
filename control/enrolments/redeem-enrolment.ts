import { randomBytes } from 'node:crypto'
import type { Audited } from '../../db/audit.ts'
import type { Db } from '../../db/connect.ts'
import {
  countUse,
  findEnrolled,
  findEnrolmentsByCode,
  isFreeKey,
  lockEnrolment,
  type StoredEnrolment,
} from '../../db/enrolments.ts'
import type { RedeemEnrolment, RedeemedEnrolment } from '../../schemas/enrolments.ts'
import { AppError } from '../../schemas/errors.ts'
import type { SecurityEventKind } from '../../schemas/security-events.ts'
import type { Origin } from '../access/actor.ts'
import { type LoginThrottle, refusedLogin } from '../access/login-throttle.ts'
import { hashSecret, newSecret } from '../access/secrets.ts'
import type { SecurityLog } from '../access/security-log.ts'
import { type Batcher, createBatcher } from '../batcher.ts'
import { type ClientDeps, registerClient } from '../clients/manage-clients.ts'
import type { Metrics } from '../metrics/metrics.ts'

/** Codes by hash. Look-ups at one moment share a statement, so that a flood of wrong ones costs few. */
export type EnrolmentCodes = Batcher<Buffer, StoredEnrolment | undefined>

const BATCH = 500

export const createEnrolmentCodes = (db: Db, metrics: Metrics): EnrolmentCodes =>
  createBatcher({
    run: async (hashes) => {
      const found = await findEnrolmentsByCode(db, hashes)
      return hashes.map((hash) => found.find(({ codeHash }) => codeHash.equals(hash)))
    },
    max: BATCH,
    whenDown: 'reject',
    meter: metrics.batcher('enrolment_code'),
  })

export interface RedeemDeps extends ClientDeps {
  enrolmentCodes: EnrolmentCodes
  loginThrottle: LoginThrottle
  securityLog: SecurityLog
}

/** Why a code makes no client, as a security event and in words for who has it. */
class CodeRefused extends Error {
  readonly kind: SecurityEventKind

  constructor(kind: SecurityEventKind, why: string) {
    super(why)
    this.kind = kind
  }
}

/** In this order: what somebody decided is said before what became of it by itself. */
const REFUSALS: [refuses: (enrolment: StoredEnrolment) => boolean, kind: SecurityEventKind, why: string][] = [
  [({ revoked }) => revoked, 'revoked_key', 'was revoked'],
  [({ remainingMs }) => remainingMs <= 0, 'expired_key', 'has expired'],
  [({ uses, maxUses }) => uses >= maxUses, 'spent_code', 'was used as often as it may be'],
]

function requireUsable(enrolment: StoredEnrolment): void {
  for (const [refuses, kind, why] of REFUSALS) if (refuses(enrolment)) throw new CodeRefused(kind, why)
}

/**
 * A new client for whoever has the code: its id and, once, its key. One transaction counts the use and makes the client, so a
 * code makes exactly as many as it may. With a key of the device's own a repetition is answered with the same client
 * (`repeated`), whatever became of the code meanwhile.
 * Throws UNAUTHORIZED or RATE_LIMIT if the code is none or may not be used, INVALID_INPUT if the id does not begin as the
 * enrolment says, CONFLICT if the id is taken or the key was used before; then no use is counted.
 */
export async function redeemEnrolment(
  deps: RedeemDeps,
  origin: Origin,
  { code, clientId, clientKey }: RedeemEnrolment,
): Promise<RedeemedEnrolment & { repeated: boolean }> {
  const enrolment = await deps.enrolmentCodes.add(hashSecret(code))
  const keyHash = clientKey === undefined ? undefined : hashSecret(clientKey)
  const earlier = async (): Promise<(RedeemedEnrolment & { repeated: true }) | undefined> => {
    if (!enrolment || !keyHash || clientKey === undefined) return undefined
    const client = await findEnrolled(deps.db, enrolment.id, keyHash)
    if (!client || (clientId !== undefined && clientId !== client.id)) return undefined
    return { client, clientKey, repeated: true }
  }

  const before = await earlier()
  if (before) return before
  try {
    if (!enrolment) throw new CodeRefused('bad_key', 'is not valid')
    requireUsable(enrolment)
    return { ...(await enrol(deps, origin, enrolment, clientId, clientKey)), repeated: false }
  } catch (error) {
    // Its own twin may have come first.
    const meanwhile = await earlier()
    if (meanwhile) return meanwhile
    throw error instanceof CodeRefused ? await refusal(deps, origin, enrolment?.id, error) : error
  }
}

async function enrol(
  deps: RedeemDeps,
  origin: Origin,
  { id, zones, idPrefix }: StoredEnrolment,
  clientId = `${idPrefix ?? 'device-'}${randomBytes(6).toString('hex')}`,
  ownKey?: string,
): Promise<RedeemedEnrolment> {
  if (!clientId.startsWith(idPrefix ?? '')) {
    const message = `must begin with ${JSON.stringify(idPrefix)}`
    throw new AppError('INVALID_INPUT', `The clientId ${message}.`, [{ path: 'clientId', message }])
  }
  const clientKey = ownKey ?? newSecret('sbk')
  const take = async (trx: Audited): Promise<void> => {
    if (ownKey !== undefined && !(await isFreeKey(trx, hashSecret(ownKey)))) {
      throw new AppError('CONFLICT', 'This clientKey was used before: make a new one.')
    }
    requireUsable(await lockEnrolment(trx, id))
    await countUse(trx, id)
  }
  const client = await registerClient(deps, {
    by: { principal: null, ...origin },
    client: { id: clientId, zones },
    clientKey,
    enrolment: { id, take },
  })
  return { client, clientKey }
}

async function refusal(
  { loginThrottle, securityLog }: RedeemDeps,
  { address }: Origin,
  id: string | undefined,
  { kind, message }: CodeRefused,
): Promise<AppError> {
  const subject = id === undefined ? address : `enrolment:${id}`
  const detail = id === undefined ? 'an enrolment code that is none' : `the code of enrolment ${id} ${message}`
  securityLog.note({ kind, subject, address, detail })
  return refusedLogin(loginThrottle, address, `The enrolment code ${message}.`)
}
