import { afterAll, beforeAll, expect, test } from 'vitest'
import { EXPECTATIONS, type Request, type Subject, subjectIn } from '../access/support/routes.ts'
import { withValue } from './support/fields.ts'
import { type Scene, startScene } from './support/scene.ts'
import {
  type Caller,
  dullOf,
  type FieldAttack,
  fieldAttacksOf,
  refusalOf,
  STRING_ROUNDS,
} from './support/string-cases.ts'

let scene: Scene
beforeAll(async () => {
  scene = await startScene()
})
afterAll(() => scene.stop())

interface Outcome {
  status: number
  code: string | undefined
  /** Which fields are said to be at fault. */
  faults: string[]
  text: string
}

/** Sends; of a stream only the head is read. */
async function ask(secret: string | undefined, method: string, { path, body }: Request): Promise<Outcome> {
  const leaving = new AbortController()
  const response = await fetch(`${scene.server.http}/api${path}`, {
    method: method.toUpperCase(),
    headers: { 'content-type': 'application/json', ...(secret ? { authorization: `Bearer ${secret}` } : {}) },
    ...(body === undefined || method === 'get' ? {} : { body: JSON.stringify(body) }),
    signal: leaving.signal,
  })
  const isStream = response.headers.get('content-type')?.startsWith('text/event-stream') === true
  const text = isStream ? '' : await response.text()
  leaving.abort()
  const { code, errors = [] } = text ? JSON.parse(text) : {}
  const faults = errors.map((fault: { path: string }) => fault.path).sort()
  return { status: response.status, code: response.status < 300 ? undefined : code, faults, text }
}

/** The request with the value in its place; undefined where it cannot be put: an address has no room for half a character. */
function inject(base: Request, { field, asKey }: FieldAttack, route: string, value: string): Request | undefined {
  const { at, path } = field
  if (at === 'body')
    return {
      ...base,
      body: withValue(base.body ?? {}, asKey ? [...path, value] : path, asKey ? { polluted: true } : value),
    }
  if (!value.isWellFormed()) return undefined
  const encoded = encodeURIComponent(value)
  if (at === 'query')
    return { ...base, path: `${base.path}?${asKey ? `${encoded}=polluted` : `${path[0]}=${encoded}`}` }
  // No client sends these: they are another address.
  if (value === '' || value === '..') return undefined
  const [, template = ''] = route.split(' ')
  const position = template.split('/').indexOf(`:${path[0]}`)
  return {
    ...base,
    path: base.path
      .split('/')
      .map((part, index) => (index === position ? encoded : part))
      .join('/'),
  }
}

const whereOf = ({ field, attack }: FieldAttack, value: string): string =>
  `${field.name}, ${attack}: ${JSON.stringify(value).slice(0, 80)}`

const cannotBeKept = (value: string): boolean => value.includes('\u0000') || !value.isWellFormed()

/** What the schema says of it, without asking the server's parser; undefined: as a dull value is answered. */
function refusalByForm({ field, asKey }: FieldAttack, value: string): Partial<Outcome> | undefined {
  if (asKey) return field.at === 'body' && value === '__proto__' ? { status: 400, code: 'INVALID_INPUT' } : undefined
  if (field.at === 'path') return field.takes(value) ? undefined : { status: 404, code: 'NOT_FOUND' }
  // What no field may have is a fault of the whole body.
  return !cannotBeKept(value) && field.takes(value) ? undefined : { status: 400, code: 'INVALID_INPUT' }
}

/** A fresh subject and a request about it that works. */
async function baseFor(route: string): Promise<{ subject: Subject; base: Request }> {
  const subject = await subjectIn(scene.server, 'theirs')
  const base = await EXPECTATIONS[route]?.request(scene.server, subject)
  return { subject, base: base as Request }
}

const secretOf = (caller: Caller, subject: Subject): string | undefined =>
  caller === 'a client' ? subject.key : scene.logins[caller].secret

/** What was made under a name that every object knows would be in the next one's way. */
async function cleanUp(subject: Subject, value: string, { text }: Outcome): Promise<void> {
  const { api } = scene.server
  const principal = /"principal":\{"id":"([^"]+)"/.exec(text)?.[1]
  const paths = [
    `/actions/${encodeURIComponent(value)}`,
    `/clients/${encodeURIComponent(value)}`,
    `/clients/${subject.id}`,
  ]
  for (const path of principal ? [...paths, `/principals/${principal}`] : paths) await api.send('DELETE', path)
}

test.each(STRING_ROUNDS)(
  '$route, $caller: hostile values are refused, or mean nothing',
  async ({ route, method, caller }) => {
    const { subject, base } = await baseFor(route)
    const client = await subjectIn(scene.server, 'theirs')
    const secret = secretOf(caller, EXPECTATIONS[route]?.allowed === 'its client' ? subject : client)
    const refusal = refusalOf(route, caller)
    const taken: { attack: FieldAttack; values: string[] }[] = []
    await scene.unchanged(async () => {
      for (const attack of fieldAttacksOf(route)) {
        const values: string[] = []
        taken.push({ attack, values })
        for (const value of refusal ? attack.values.slice(0, 1) : attack.values) {
          const where = whereOf(attack, value)
          const request = inject(base, attack, route, value)
          const expected = refusal ?? refusalByForm(attack, value)
          if (!request) continue
          if (!expected) {
            values.push(value)
            continue
          }
          const { status, code, faults } = await ask(secret, method, request)
          expect({ where, status, code }).toEqual({ where, ...expected })
          const { at, path } = attack.field
          if (refusal || at === 'path' || attack.asKey || cannotBeKept(value)) continue
          expect({
            where,
            faults: faults.some((fault) => fault.startsWith(path[0] === undefined ? at : String(path[0]))),
          }).toEqual({ where, faults: true })
        }
      }
    })
    await scene.spared(async () => {
      /** A value that is taken may change what the request is about: reading alone does not. */
      const outcomeOf = async (attack: FieldAttack, value: string): Promise<Outcome> => {
        const own = method === 'get' ? { subject, base } : await baseFor(route)
        const outcome = await ask(
          secretOf(caller, own.subject),
          method,
          inject(own.base, attack, route, value) as Request,
        )
        if (method !== 'get' && outcome.status < 300) await cleanUp(own.subject, value, outcome)
        return outcome
      }
      for (const { attack, values } of taken.filter(({ values }) => values.length > 0)) {
        const dull = await outcomeOf(attack, dullOf(attack.field))
        expect(dull.status).toBeLessThan(500)
        for (const value of values) {
          const hostile = await outcomeOf(attack, value)
          const where = whereOf(attack, value)
          const seen = ({ status, code, faults }: Outcome) => ({ where, status, code, faults })
          expect(seen(hostile)).toEqual(seen(dull))
          // What is shown of it is shown as it is.
          if (!attack.asKey && dull.text.includes(dullOf(attack.field)))
            expect(hostile.text).toContain(JSON.stringify(value).slice(1, -1))
        }
      }
    })
    expect(({} as Record<string, unknown>).polluted).toBeUndefined()
  },
)
