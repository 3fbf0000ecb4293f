import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import { deleteAction, findAction, listActionNames, listActions, putAction } from '../../db/actions.ts'
import { audited } from '../../db/audit.ts'
import type { Db } from '../../db/connect.ts'
import type { Action, PutAction } from '../../schemas/actions.ts'
import { AppError } from '../../schemas/errors.ts'
import type { Json } from '../../schemas/json.ts'
import type { Page, Paging } from '../../schemas/paging.ts'
import { type Actor, changedBy } from '../access/actor.ts'
import { createCache } from '../access/cache.ts'
import type { Tell } from '../cluster/hints.ts'

/** Registered actions: how a command's payload is checked and what it gets by default. */
export interface Actions {
  /** From a short memory: a command is judged by an action that is at most CREDENTIAL_CACHE_SECONDS old. */
  find(name: string): Promise<Action | undefined>
  /** As far as this node knows without asking. */
  isRegistered(name: string): boolean
  /** Another node has changed it. */
  forget(name: string): void
  /** Learns the names of all registered actions. */
  load(): Promise<void>
  /** Throws NOT_FOUND. */
  read(name: string): Promise<Action>
  list(paging: Paging): Promise<Page<Action>>
  /** Throws INVALID_INPUT, naming each fault, if the action has a schema that the payload does not meet. */
  checkPayload(action: Action, payload: Json | undefined): void
  put(actor: Actor, name: string, action: PutAction): Promise<Action>
  /** Throws NOT_FOUND. */
  remove(actor: Actor, name: string): Promise<void>
}

export function createActions(deps: { db: Db; cacheSeconds: number; tell: Tell }): Actions {
  const registered = new Set<string>()
  const cache = createCache(deps.cacheSeconds, async (name) => {
    const action = await findAction(deps.db, name)
    if (action) registered.add(name)
    else registered.delete(name)
    return action
  })
  const validators = new WeakMap<Action, ValidateFunction>()

  return {
    find: (name) => cache.get(name),
    isRegistered: (name) => registered.has(name),
    forget: cache.forget,
    async load() {
      for (const name of await listActionNames(deps.db)) registered.add(name)
    },
    async read(name) {
      const action = await findAction(deps.db, name)
      if (!action) throw notFound(name)
      return action
    },
    list: (paging) => listActions(deps.db, paging),
    checkPayload(action, payload) {
      if (!action.payloadSchema) return
      const validate = validators.get(action) ?? compile(action.payloadSchema)
      validators.set(action, validate)
      if (validate(payload ?? null)) return
      const faults = (validate.errors ?? []).map((error) => ({
        path: `payload${error.instancePath.replaceAll('/', '.').replaceAll('~1', '/').replaceAll('~0', '~')}`,
        message: error.message ?? 'is not valid',
      }))
      throw new AppError(
        'INVALID_INPUT',
        `The payload does not meet the schema of action ${action.name}: ${faults[0]?.path} ${faults[0]?.message}`,
        faults,
      )
    },
    async put(actor, name, action) {
      if (action.payloadSchema) compile(action.payloadSchema)
      const what = { kind: 'action.put', subject: `action:${name}` } as const
      const stored = await audited(deps.db, changedBy(actor), what, async (trx) => {
        const before = await findAction(trx, name)
        const after = await putAction(trx, name, action)
        return { before: before ? governed(before) : null, after: governed(after), result: after }
      })
      cache.forget(name)
      deps.tell('action', { name })
      registered.add(name)
      return stored
    },
    async remove(actor, name) {
      const what = { kind: 'action.deleted', subject: `action:${name}` } as const
      await audited(deps.db, changedBy(actor), what, async (trx) => {
        const before = await findAction(trx, name)
        if (!before || !(await deleteAction(trx, name))) throw notFound(name)
        return { before: governed(before), after: null, result: undefined }
      })
      cache.forget(name)
      deps.tell('action', { name })
      registered.delete(name)
    },
  }
}

/** What principals decide about an action, as the audit keeps it. */
const governed = ({ name: _, updatedAt: __, ...action }: Action) => action

const notFound = (name: string): AppError => new AppError('NOT_FOUND', `There is no action ${name}.`)

/** JSON Schema 2020-12. Throws INVALID_INPUT if it is none. A compiler per schema: two may share an `$id`. */
function compile(schema: Record<string, unknown>): ValidateFunction {
  try {
    const validate = new Ajv2020({ allErrors: true, strict: false, logger: false }).compile(schema)
    // Such a validator answers a promise, which would pass for "valid" and reject unheard.
    if ('$async' in validate) throw new Error('$async is not supported')
    return validate
  } catch (error) {
    const message = (error as Error).message
    throw new AppError('INVALID_INPUT', `payloadSchema is not a JSON Schema (2020-12): ${message}`, [
      { path: 'payloadSchema', message },
    ])
  }
}
