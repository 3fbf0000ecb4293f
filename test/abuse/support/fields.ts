import { Ajv2020 } from 'ajv/dist/2020.js'
import { z } from 'zod'
import { apiRoutes } from '../../../api/server.ts'
import type { Control } from '../../../control/control.ts'
import { parseSettings } from '../../../schemas/settings.ts'

/** One place of a route that takes a value from its caller. */
export interface Field {
  route: string
  method: string
  /** `path.id`, `query.status`, `body.zones.0`, `body` itself. */
  name: string
  at: 'path' | 'query' | 'body'
  /** Into the part: keys, and numbers of array items. */
  path: (string | number)[]
  /** An object that takes keys of its caller's choice, too. */
  isObject: boolean
  /** Whether its schema takes the value, as JSON Schema says it: independent of the parser that the server asks. */
  takes(value: unknown): boolean
}

type Schema = Record<string, unknown> & {
  properties?: Record<string, Schema>
  items?: Schema
  anyOf?: Schema[]
  oneOf?: Schema[]
  allOf?: Schema[]
}

const ajv = new Ajv2020({ strict: false, validateFormats: false })

/** Every place of every route, from the list of routes and its schemas. */
export const FIELDS: Field[] = apiRoutes({ settings: parseSettings({}) } as Control).flatMap((route) => {
  const parts = { path: route.params, query: route.query, body: route.body }
  return Object.entries(parts).flatMap(([at, schema]) => {
    if (!schema) return []
    const json = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as Schema
    return unique(leavesOf(json, [])).map(({ path, schemas }) => {
      const checks = schemas.map((one) => ajv.compile(one))
      return {
        route: `${route.method} ${route.path}`,
        method: route.method,
        name: [at, ...path].join('.'),
        at: at as Field['at'],
        path,
        isObject: schemas.some((one) => one.type === 'object'),
        takes: (value: unknown) => checks.some((check) => check(value) as boolean),
      }
    })
  })
})

interface Leaf {
  path: (string | number)[]
  schema: Schema
}

function leavesOf(schema: Schema, path: (string | number)[]): Leaf[] {
  const branches = [...(schema.anyOf ?? []), ...(schema.oneOf ?? []), ...(schema.allOf ?? [])]
  const below = [
    ...branches.flatMap((branch) => leavesOf(branch, path)),
    ...Object.entries(schema.properties ?? {}).flatMap(([key, one]) => leavesOf(one, [...path, key])),
    ...(schema.items ? leavesOf(schema.items, [...path, 0]) : []),
  ]
  return [...(branches.length > 0 ? [] : [{ path, schema }]), ...below]
}

/** A place that several branches name is one place, which takes what any of them does. */
function unique(leaves: Leaf[]): { path: (string | number)[]; schemas: Schema[] }[] {
  const found = new Map<string, { path: (string | number)[]; schemas: Schema[] }>()
  for (const { path, schema } of leaves) {
    const known = found.get(path.join('.'))
    if (known) known.schemas.push(schema)
    else found.set(path.join('.'), { path, schemas: [schema] })
  }
  return [...found.values()]
}

/** A copy of the document with the value at that place; what is missing on the way is made. */
export function withValue(document: unknown, path: (string | number)[], value: unknown): unknown {
  const [key, ...rest] = path
  if (key === undefined) return value
  const copy: Record<string | number, unknown> | unknown[] = Array.isArray(document)
    ? [...document]
    : typeof key === 'number'
      ? []
      : { ...(document as object) }
  const within = Object.hasOwn(copy, key) ? (copy as Record<string | number, unknown>)[key] : undefined
  Object.defineProperty(copy, key, {
    value: withValue(within, rest, value),
    enumerable: true,
    writable: true,
    configurable: true,
  })
  return copy
}
