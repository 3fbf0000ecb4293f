import { v7 as uuid } from 'uuid'
import { audited } from '../../db/audit.ts'
import type { Db } from '../../db/connect.ts'
import { insertEnrolment, listEnrolments, revokeEnrolment } from '../../db/enrolments.ts'
import type { CreatedEnrolment, CreateEnrolment, Enrolment } from '../../schemas/enrolments.ts'
import { AppError } from '../../schemas/errors.ts'
import type { Page, Paging } from '../../schemas/paging.ts'
import type { Settings } from '../../schemas/settings.ts'
import { type Actor, changedBy } from '../access/actor.ts'
import { hashSecret, newSecret } from '../access/secrets.ts'

export const readEnrolments = (db: Db, paging: Paging): Promise<Page<Enrolment>> => listEnrolments(db, paging)

/** The code is answered once and kept only as a hash. */
export async function createEnrolment(
  { db, settings }: { db: Db; settings: Settings },
  actor: Actor,
  { name = '', zones = [], idPrefix, maxUses = 1, ttlSeconds = settings.ENROLMENT_TTL_SECONDS }: CreateEnrolment,
): Promise<CreatedEnrolment> {
  const id = uuid()
  const code = newSecret('sbe')
  return audited(db, changedBy(actor), { kind: 'enrolment.created', subject: subjectOf(id) }, async (trx) => {
    const enrolment = await insertEnrolment(trx, {
      id,
      name,
      codeHash: hashSecret(code),
      zones: [...new Set(zones)].sort(),
      idPrefix: idPrefix ?? null,
      maxUses,
      createdBy: actor.principal.name,
      ttlSeconds,
    })
    return { before: null, after: governed(enrolment), result: { enrolment, code } }
  })
}

/** Its code opens nothing any more; clients that came by it stay. Throws NOT_FOUND. */
export async function removeEnrolment({ db }: { db: Db }, actor: Actor, id: string): Promise<void> {
  await audited(db, changedBy(actor), { kind: 'enrolment.revoked', subject: subjectOf(id) }, async (trx) => {
    const revoked = await revokeEnrolment(trx, id)
    if (!revoked) throw new AppError('NOT_FOUND', `There is no enrolment ${id}.`)
    return { before: { ...governed(revoked), uses: revoked.uses }, after: null, result: undefined }
  })
}

const subjectOf = (id: string): string => `enrolment:${id}`

/** What principals decide about an enrolment, as the audit keeps it. */
const governed = ({ name, zones, idPrefix, maxUses, expiresAt }: Enrolment) => ({
  name,
  zones,
  idPrefix: idPrefix ?? null,
  maxUses,
  expiresAt,
})
