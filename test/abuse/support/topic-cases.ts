import { ROOT } from '../../support/device.ts'
import { type KindName, kindOf } from './logins.ts'
import { MQTT_DOORS, type MqttDoor } from './peer.ts'

const COMMAND = '0198c0de-0000-7000-8000-000000000000'
const of = (id: string, rest: string): string => `${ROOT}/clients/${id}/${rest}`
const levels = (count: number): string => Array.from({ length: count }, () => 'x').join('/')

/** Where nobody may publish, and no will may go. `me` is who tries. */
export const FORBIDDEN_TOPICS: Record<string, (me: string) => string> = {
  "another's status": () => of('victim', 'status'),
  "another's events": () => of('victim', 'events/scan'),
  "another's report": () => of('victim', `commands/${COMMAND}/status`),
  "another's commands": () => of('victim', 'commands'),
  "another's config": () => of('victim', 'config'),
  "another's replies": () => of('victim', 'replies'),
  "an offline client's status": () => of('neighbour', 'status'),
  'the status of a client that there is not': () => of('invented', 'status'),
  'the status of a report connection': () => of('victim~reports', 'status'),
  'its own commands': (me) => of(me, 'commands'),
  'its own config': (me) => of(me, 'config'),
  'its own replies': (me) => of(me, 'replies'),
  'a topic below its own that there is not': (me) => of(me, 'status/more'),
  "a zone's commands": () => `${ROOT}/zones/A/commands`,
  'the commands of a zone that there is not': () => `${ROOT}/zones/invented/commands`,
  'the broadcast': () => `${ROOT}/broadcast/commands`,
  'the root': () => ROOT,
  'below the root': () => `${ROOT}/${levels(5)}`,
  'beside the root': () => `${ROOT}x/clients/victim/status`,
  'another version': () => 'signalbox/v2/clients/victim/status',
  $SYS: () => '$SYS/broker/clients',
  $share: () => `$share/group/${of('victim', 'status')}`,
  $dropped: () => '$dropped',
  'empty levels': () => `${ROOT}//clients/victim/status`,
  'a way back': (me) => of(me, '../victim/status'),
  'percent signs': (me) => of(me, '%2e%2e%2fvictim%2fstatus'),
  'letters that look like others': () => of('vict\u0456m', 'status'),
  'a right-to-left override': (me) => of(me, 'events/\u202enacs'),
  'an event that every object has a member of': (me) => of(me, 'events/__proto__'),
  'an event with the letters of SQL': (me) => of(me, "events/x'; drop table clients; --"),
  'many levels': () => levels(33),
  'nothing but slashes': () => '/'.repeat(1000),
  'more bytes than a topic has': () => `${ROOT}/${'x'.repeat(2000)}`,
  'a wildcard for one level': () => of('+', 'status'),
  'a wildcard for all': () => `${ROOT}/#`,
  'a character that is none': (me) => of(me, 'events/a\u0000b'),
}

/** What nobody but a principal may ask for, who may below the root. */
export const FORBIDDEN_FILTERS: Record<
  string,
  { filter: (me: string) => string; principal: number | 'closed'; client?: 'closed' }
> = {
  everything: { filter: () => '#', principal: 128 },
  'every first level': { filter: () => '+', principal: 128 },
  'everything by levels': { filter: () => '+/+/#', principal: 128 },
  'the root by a wildcard': { filter: () => '+/v1/clients/victim/commands', principal: 128 },
  'all below the root': { filter: () => `${ROOT}/#`, principal: 1 },
  'all clients': { filter: () => `${ROOT}/clients/#`, principal: 1 },
  "every client's commands": { filter: () => of('+', 'commands'), principal: 1 },
  "another's commands": { filter: () => of('victim', 'commands'), principal: 1 },
  "another's config": { filter: () => of('victim', 'config'), principal: 1 },
  "another's replies": { filter: () => of('victim', 'replies'), principal: 1 },
  "all of another's": { filter: () => of('victim', '#'), principal: 1 },
  'all of its own': { filter: (me) => of(me, '#'), principal: 1 },
  'its own by a wildcard': { filter: (me) => of(me, '+'), principal: 1 },
  'its own status': { filter: (me) => of(me, 'status'), principal: 1 },
  "another zone's commands": { filter: () => `${ROOT}/zones/A/commands`, principal: 1 },
  "every zone's commands": { filter: () => `${ROOT}/zones/+/commands`, principal: 1 },
  'all zones': { filter: () => `${ROOT}/zones/#`, principal: 1 },
  'the root itself': { filter: () => ROOT, principal: 128 },
  'beside the root': { filter: () => `${ROOT}x/#`, principal: 128 },
  $SYS: { filter: () => '$SYS/#', principal: 128 },
  '$SYS by levels': { filter: () => '$SYS/+/new/clients', principal: 128 },
  'what was dropped': { filter: () => '$dropped', principal: 128 },
  'shared: its own commands': { filter: (me) => `$share/g/${of(me, 'commands')}`, principal: 128 },
  'shared: all below the root': { filter: () => `$share/g/${ROOT}/#`, principal: 128 },
  'shared: a queue': { filter: () => `$queue/${ROOT}/#`, principal: 128 },
  'a way back': { filter: (me) => of(me, '../victim/commands'), principal: 1 },
  'percent signs': { filter: () => 'signalbox%2fv1%2fclients%2fvictim%2fcommands', principal: 128 },
  'letters that look like others': { filter: () => of('vict\u0456m', 'commands'), principal: 1 },
  'empty levels': { filter: () => `/${ROOT}/#`, principal: 128 },
  'many levels': { filter: () => levels(33), principal: 'closed', client: 'closed' },
  'nothing but slashes': { filter: () => '/'.repeat(1000), principal: 'closed', client: 'closed' },
  'more bytes than a topic has': { filter: () => `${ROOT}/${'x'.repeat(2000)}`, principal: 'closed', client: 'closed' },
  'a wildcard beside letters': { filter: () => `${ROOT}/cli+`, principal: 'closed', client: 'closed' },
  'a wildcard before the end': { filter: () => `${ROOT}/#/status`, principal: 'closed', client: 'closed' },
  'a character that is none': { filter: () => `${ROOT}/a\u0000b`, principal: 'closed', client: 'closed' },
}

/** Who gets in, and as what: a client also by its report connection. */
const INSIDERS = [
  { kind: 'a client', as: 'itself' },
  { kind: 'a client', as: 'its report connection' },
  { kind: 'a client with the key before the last, in its grace', as: 'itself' },
  { kind: 'admin', as: 'itself' },
  { kind: 'operator', as: 'itself' },
  { kind: 'technician', as: 'itself' },
  { kind: 'viewer', as: 'itself' },
] as const satisfies { kind: KindName; as: string }[]
export type Insider = (typeof INSIDERS)[number]

export const isPrincipal = ({ kind }: Insider): boolean => kindOf(kind).as === 'principal'

/** One attacker at one door: each attack of the table is a case of its own. */
export interface Rounds {
  door: MqttDoor
  insider: Insider
  who: string
}

export const ROUNDS: Rounds[] = MQTT_DOORS.flatMap((door) =>
  INSIDERS.map((insider) => ({ door, insider, who: `${insider.kind} as ${insider.as}` })),
)
export const PUBLISH_ROUNDS = ROUNDS.flatMap((round) =>
  [false, true].map((retain) => ({ ...round, retain, how: retain ? 'to be retained' : 'in passing' })),
)
