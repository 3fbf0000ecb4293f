import { EXPECTATIONS, ROUTES } from '../../access/support/routes.ts'
import { FIELDS, type Field } from './fields.ts'
import { INJECTED, MEMBERS, SQL, UNPAIRED } from './hostile.ts'

/** What a hostile value is compared with: one that is as legal, means nothing, and is nowhere else. */
export const dullOf = (field: Field): string => `dull-${FIELDS.indexOf(field)}`

/** Values by what they are meant to break; the bytes of a class count once. */
const VALUE_ATTACKS = {
  'letters of SQL': SQL,
  'letters of topics, paths and logs': [...INJECTED, ...UNPAIRED],
  'names that every object has a member of': MEMBERS,
} as const

const CALLERS = ['admin', 'operator', 'technician', 'viewer', 'a client', 'nobody'] as const
export type Caller = (typeof CALLERS)[number]

/** What a caller who is not let in is answered, whatever he sends. */
export function refusalOf(route: string, caller: Caller): { status: number; code: string } | undefined {
  const allowed = EXPECTATIONS[route]?.allowed
  if (allowed === 'anyone') return undefined
  const isClient = caller === 'a client'
  if (caller === 'nobody' || isClient !== (allowed === 'its client')) return { status: 401, code: 'UNAUTHORIZED' }
  if (isClient || (allowed as readonly string[]).includes(caller)) return undefined
  return { status: 403, code: 'FORBIDDEN' }
}

/** A place for a value: parts that are always objects are places for keys alone. */
const takesValues = ({ at, path }: Field): boolean => at === 'body' || path.length > 0
const takesKeys = ({ at, isObject, takes }: Field): boolean =>
  (at === 'query' && isObject) || (at === 'body' && (isObject || takes({ a: 1 })))

export interface FieldAttack {
  field: Field
  attack: string
  values: readonly string[]
  /** The value is a key there, with something that must not get anywhere under it. */
  asKey: boolean
}

/** So many values of a class at each place; which ones goes round, so that each is tried in many places. */
const VALUES_PER_PLACE = 3

const goRound = (values: readonly string[], from: number): string[] =>
  Array.from(
    { length: Math.min(VALUES_PER_PLACE, values.length) },
    (_, index) => values[(from * 5 + index) % values.length] as string,
  )

/** The attacks on one route: each place with each class of values, and each object with foreign keys. */
export function fieldAttacksOf(route: string): FieldAttack[] {
  return FIELDS.filter((field) => field.route === route).flatMap((field) => [
    ...(takesValues(field)
      ? Object.entries(VALUE_ATTACKS).map(([attack, values]) => ({
          field,
          attack,
          values: goRound(values, FIELDS.indexOf(field)),
          asKey: false,
        }))
      : []),
    ...(takesKeys(field)
      ? [{ field, attack: 'keys that every object has a member of', values: MEMBERS, asKey: true }]
      : []),
  ])
}

export const STRING_ROUNDS = ROUTES.flatMap(({ name, method }) =>
  CALLERS.map((caller) => ({ route: name, method, caller })),
).filter(({ route }) => fieldAttacksOf(route).length > 0)
