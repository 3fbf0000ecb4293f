import { Role } from '../../../schemas/principals.ts'
import { grant } from '../../access/support/principals.ts'
import type { TestServer } from '../../support/server.ts'

/** Somebody who should not do what is tried: what each door says to it before anything else is looked at. */
interface Kind {
  /** What its login is worth over MQTT: 0, or the code of its refusal. */
  mqtt: 0 | 4 | 5
  /** Whose id it may come with: a client's own alone, or any that is nobody's. */
  as?: 'client' | 'principal'
  /** The refusal at the routes of principals and at those of clients; undefined: it is let in. */
  api?: 'UNAUTHORIZED'
  agent?: 'UNAUTHORIZED' | 'CLIENT_DISABLED'
}

const DEAD = { mqtt: 4, api: 'UNAUTHORIZED', agent: 'UNAUTHORIZED' } as const
const CLIENT = { mqtt: 0, as: 'client', api: 'UNAUTHORIZED' } as const
const PRINCIPAL = { mqtt: 0, as: 'principal', agent: 'UNAUTHORIZED' } as const

const KINDS = {
  nobody: DEAD,
  'a wrong key': DEAD,
  'a wrong token': DEAD,
  'a client': CLIENT,
  'a client with the key before the last, in its grace': CLIENT,
  'a disabled client': { ...DEAD, mqtt: 5, agent: 'CLIENT_DISABLED' },
  'a deleted client': DEAD,
  'a key that was rotated away': DEAD,
  admin: PRINCIPAL,
  operator: PRINCIPAL,
  technician: PRINCIPAL,
  viewer: PRINCIPAL,
  'an expired token': DEAD,
  'a revoked token': DEAD,
  'a token of a deleted principal': DEAD,
} as const satisfies Record<string, Kind>

export type KindName = keyof typeof KINDS
export const KIND_NAMES = Object.keys(KINDS) as KindName[]
export const kindOf = (name: KindName): Kind => KINDS[name]

/** What somebody of a kind has in his hands. */
export interface Credentials {
  username?: string
  secret?: string
}

/** One of each kind, on this server. */
export async function makeLogins(server: TestServer): Promise<Record<KindName, Credentials>> {
  const { api, sql } = server
  const succeed = async (method: string, path: string, body?: unknown) => {
    const answer = await api.send(method, path, body)
    if (answer.status >= 300) throw new Error(`${method} ${path}: ${JSON.stringify(answer.body)}`)
    return answer.body
  }
  const client = async (id: string): Promise<Credentials> => {
    const { clientKey } = await succeed('POST', '/clients', { id, zones: ['theirs'] })
    return { username: id, secret: clientKey }
  }
  const principal = async (name: string, role: Role): Promise<Credentials & { id: string; tokenId: string }> => {
    const created = await succeed('POST', '/principals', { name, role })
    const { id } = created.principal
    const tokens = await sql<{ id: string }>('select id from tokens where principal_id = $1', [id])
    return { username: name, secret: created.token, id, tokenId: tokens[0]?.id as string }
  }

  const graced = await client('graced')
  const rotated = await client('rotated')
  const disabled = await client('switched-off')
  const deleted = await client('gone')
  await succeed('POST', '/clients/graced/rotate-key', { graceSeconds: 3600 })
  await succeed('POST', '/clients/rotated/rotate-key')
  await succeed('POST', '/clients/switched-off/disable')
  await succeed('DELETE', '/clients/gone')
  const roles = {} as Record<Role, Credentials>
  for (const role of Role.options) {
    const { id, ...credentials } = await principal(`the-${role}`, role)
    if (role === 'operator') await succeed('PUT', `/principals/${id}/grants`, [grant('*')])
    roles[role] = credentials
  }
  const expired = await principal('expired', 'admin')
  await sql(`update tokens set expires_at = now() - interval '1 second' where id = $1`, [expired.tokenId])
  const revoked = await principal('revoked', 'admin')
  await succeed('DELETE', `/tokens/${revoked.tokenId}`)
  const orphaned = await principal('orphaned', 'admin')
  await succeed('DELETE', `/principals/${orphaned.id}`)

  return {
    nobody: {},
    'a wrong key': { username: 'attacker', secret: `sbk_${'x'.repeat(43)}` },
    'a wrong token': { username: 'the-admin', secret: `sbt_${'x'.repeat(43)}` },
    'a client': await client('attacker'),
    'a client with the key before the last, in its grace': graced,
    'a disabled client': disabled,
    'a deleted client': deleted,
    'a key that was rotated away': rotated,
    ...roles,
    'an expired token': expired,
    'a revoked token': revoked,
    'a token of a deleted principal': orphaned,
  }
}
