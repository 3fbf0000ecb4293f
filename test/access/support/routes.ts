import { randomUUID } from 'node:crypto'
import { apiRoutes } from '../../../api/server.ts'
import type { Control } from '../../../control/control.ts'
import type { AuditKind } from '../../../schemas/audit.ts'
import type { EventType } from '../../../schemas/events.ts'
import type { Role } from '../../../schemas/principals.ts'
import { parseSettings } from '../../../schemas/settings.ts'
import type { TestServer } from '../../support/server.ts'
import { client, fresh, grant } from './principals.ts'

export interface Request {
  path: string
  body?: unknown
}

/** A client of its own for each request: what is done with it disturbs no other. */
export interface Subject {
  id: string
  key: string
  zone: string
}

/** What a route is for: who may, what it leaves behind, and a request that works and one that does not. */
export interface Expectation {
  allowed: readonly Role[] | 'its client' | 'anyone'
  /** Operators only within their grants. */
  scoped?: true
  status: number
  /** What a success is written down as: exactly one row of the audit, or the command's own event; null: nothing changes. */
  record: { audit: AuditKind } | { event: EventType } | null
  /** A request that has to succeed for whoever may, about this client. */
  request(server: TestServer, subject: Subject): Promise<Request> | Request
  /** A request that has to fail even for an administrator. */
  failing?(server: TestServer): Promise<Request> | Request
  /** The client's own doors: what another client's key gets. */
  foreign?: { status: number; code: string }
}

const EVERYBODY = ['admin', 'operator', 'technician', 'viewer'] as const
const SENDERS = ['admin', 'operator'] as const
const NOBODY = '0198c0de-0000-7000-8000-000000000000'

const read = (path: string | ((subject: Subject) => string)): Expectation => ({
  allowed: EVERYBODY,
  status: 200,
  record: null,
  request: (_, subject) => ({ path: typeof path === 'string' ? path : path(subject) }),
})

const managed = (
  kind: AuditKind,
  status: number,
  request: Expectation['request'],
  failing: NonNullable<Expectation['failing']>,
): Expectation => ({ allowed: ['admin'], status, record: { audit: kind }, request, failing })

/** Something about a command that was just sent to the subject. */
const aboutCommand = (suffix: string) => async (server: TestServer, subject: Subject) => ({
  path: `/commands/${await send(server, subject)}${suffix}`,
})
const readCommand = (suffix: string): Expectation => ({ ...read(''), request: aboutCommand(suffix) })

async function send({ api }: TestServer, { id }: Subject): Promise<string> {
  return (await api.post('/commands', { clientId: id, action: 'print' })).body.id
}

/** A command whose outcome nobody can tell: it may be retried, and resolved. */
async function unknown(server: TestServer, subject: Subject): Promise<string> {
  const id = await send(server, subject)
  await server.sql(`update executions set status = 'outcome_unknown' where command_id = $1`, [id])
  return id
}

/** An alert about a client, a command, or neither. */
export async function alert(server: TestServer, about: { clientId?: string; commandId?: string }): Promise<string> {
  const id = randomUUID()
  await server.sql(
    `insert into alerts (id, kind, subject, client_id, command_id, severity, message, details, count, last_at)
     values ($1, 'client_lost', $2, $3, $4, 'warning', 'gone', '{}', 1, clock_timestamp())`,
    [id, id, about.clientId ?? null, about.commandId ?? null],
  )
  return id
}

const changed = (
  event: EventType,
  request: (server: TestServer, subject: Subject) => Promise<Request>,
  failing: Request,
): Expectation => ({ allowed: SENDERS, scoped: true, status: 200, record: { event }, request, failing: () => failing })

const ownDoor = (status: number, foreign: Expectation['foreign'], request: Expectation['request']): Expectation => ({
  allowed: 'its client',
  status,
  record: null,
  request,
  foreign,
})

async function principalId({ api }: TestServer, role: Role = 'viewer'): Promise<string> {
  return (await api.post('/principals', { name: fresh('p'), role })).body.principal.id
}

const taken = async (server: TestServer): Promise<string> => {
  const id = fresh('taken')
  await client(server, id)
  return id
}

/** One row per route; a route without one is a failure. */
export const EXPECTATIONS: Record<string, Expectation> = {
  'get /principals': read('/principals'),
  'post /principals': managed(
    'principal.created',
    201,
    () => ({ path: '/principals', body: { name: fresh('new'), role: 'viewer' } }),
    () => ({ path: '/principals', body: { name: 'admin', role: 'viewer' } }),
  ),
  'delete /principals/:id': managed(
    'principal.deleted',
    204,
    async (server) => ({ path: `/principals/${await principalId(server)}` }),
    () => ({ path: `/principals/${NOBODY}` }),
  ),
  'get /principals/:id/grants': {
    ...read(''),
    request: async (server) => ({ path: `/principals/${await principalId(server)}/grants` }),
  },
  'put /principals/:id/grants': managed(
    'grants.replaced',
    200,
    async (server) => ({ path: `/principals/${await principalId(server, 'operator')}/grants`, body: [grant('*')] }),
    async (server) => ({ path: `/principals/${await principalId(server, 'viewer')}/grants`, body: [grant('*')] }),
  ),
  'get /tokens': read('/tokens'),
  'post /tokens': managed(
    'token.created',
    201,
    async (server) => ({ path: '/tokens', body: { principalId: await principalId(server), name: 'second' } }),
    () => ({ path: '/tokens', body: { principalId: NOBODY, name: 'second' } }),
  ),
  'delete /tokens/:id': managed(
    'token.revoked',
    204,
    async (server) => {
      const { body } = await server.api.post('/tokens', { principalId: await principalId(server), name: 'to go' })
      return { path: `/tokens/${body.id}` }
    },
    () => ({ path: `/tokens/${NOBODY}` }),
  ),
  'get /session': read('/session'),
  // Without the cookie there is none to end; what a browser does is in test/http-hardening.
  'delete /session': { allowed: EVERYBODY, status: 204, record: null, request: () => ({ path: '/session' }) },
  'post /session': {
    allowed: 'anyone',
    status: 201,
    record: { audit: 'session.opened' },
    async request(server) {
      const { body } = await server.api.post('/principals', { name: fresh('browser'), role: 'viewer' })
      return { path: '/session', body: { token: body.token } }
    },
    failing: () => ({ path: '/session', body: { token: `sbt_${'x'.repeat(43)}` } }),
  },

  'get /audit': read('/audit'),
  'get /security-events': read('/security-events'),

  'get /enrolments': read('/enrolments'),
  'post /enrolments': managed(
    'enrolment.created',
    201,
    (_, { zone }) => ({ path: '/enrolments', body: { zones: [zone] } }),
    () => ({ path: '/enrolments', body: { maxUses: 0 } }),
  ),
  'delete /enrolments/:id': managed(
    'enrolment.revoked',
    204,
    async ({ api }) => ({ path: `/enrolments/${(await api.post('/enrolments', {})).body.enrolment.id}` }),
    () => ({ path: `/enrolments/${NOBODY}` }),
  ),
  'post /enrolments/redeem': {
    allowed: 'anyone',
    status: 201,
    record: { audit: 'client.enrolled' },
    async request({ api }, { zone }) {
      const { body } = await api.post('/enrolments', { zones: [zone], maxUses: 10 })
      return { path: '/enrolments/redeem', body: { code: body.code } }
    },
    failing: () => ({ path: '/enrolments/redeem', body: { code: `sbe_${'x'.repeat(43)}` } }),
  },

  'get /clients': read('/clients'),
  'post /clients': managed(
    'client.created',
    201,
    (_, { zone }) => ({ path: '/clients', body: { id: fresh('new'), zones: [zone] } }),
    async (server) => ({ path: '/clients', body: { id: await taken(server) } }),
  ),
  'get /clients/:id': read(({ id }) => `/clients/${id}`),
  'patch /clients/:id': managed(
    'client.updated',
    200,
    (_, { id }) => ({ path: `/clients/${id}`, body: { name: 'renamed' } }),
    () => ({ path: '/clients/nobody', body: { name: 'renamed' } }),
  ),
  'delete /clients/:id': managed(
    'client.deleted',
    204,
    (_, { id }) => ({ path: `/clients/${id}` }),
    () => ({ path: '/clients/nobody' }),
  ),
  'post /clients/:id/rotate-key': managed(
    'client.key_rotated',
    200,
    (_, { id }) => ({ path: `/clients/${id}/rotate-key` }),
    () => ({ path: '/clients/nobody/rotate-key' }),
  ),
  'post /clients/:id/disable': managed(
    'client.disabled',
    200,
    (_, { id }) => ({ path: `/clients/${id}/disable` }),
    () => ({ path: '/clients/nobody/disable' }),
  ),
  'post /clients/:id/enable': managed(
    'client.enabled',
    200,
    (_, { id }) => ({ path: `/clients/${id}/enable` }),
    () => ({ path: '/clients/nobody/enable' }),
  ),
  'get /clients/:id/queue': read(({ id }) => `/clients/${id}/queue`),

  'get /zones': read('/zones'),
  'put /zones/:zone/clients/:id': managed(
    'zone.joined',
    200,
    (_, { id }) => ({ path: `/zones/further/clients/${id}` }),
    () => ({ path: '/zones/further/clients/nobody' }),
  ),
  'delete /zones/:zone/clients/:id': managed(
    'zone.left',
    204,
    (_, { id, zone }) => ({ path: `/zones/${zone}/clients/${id}` }),
    async (server) => ({ path: `/zones/elsewhere/clients/${await taken(server)}` }),
  ),

  'get /actions': read('/actions'),
  'get /actions/:name': {
    ...read('/actions/known'),
    async request({ api }) {
      await api.send('PUT', '/actions/known', {})
      return { path: '/actions/known' }
    },
  },
  'put /actions/:name': managed(
    'action.put',
    200,
    () => ({ path: `/actions/${fresh('a')}`, body: { description: 'new' } }),
    () => ({ path: '/actions/wrong', body: { payloadSchema: { type: 'nothing' } } }),
  ),
  'delete /actions/:name': managed(
    'action.deleted',
    204,
    async ({ api }) => {
      const path = `/actions/${fresh('a')}`
      await api.send('PUT', path, {})
      return { path }
    },
    () => ({ path: '/actions/unknown' }),
  ),

  'post /commands': {
    allowed: SENDERS,
    scoped: true,
    status: 201,
    record: { event: 'command.created' },
    request: (_, { id }) => ({ path: '/commands', body: { clientId: id, action: 'print' } }),
    failing: () => ({ path: '/commands', body: { clientId: 'nobody', action: 'print' } }),
  },
  'post /commands/preview': {
    allowed: SENDERS,
    scoped: true,
    status: 200,
    record: null,
    request: (_, { id }) => ({ path: '/commands/preview', body: { clientId: id, action: 'print' } }),
  },
  'get /commands': read('/commands'),
  'get /commands/:id': readCommand(''),
  'get /commands/:id/executions': readCommand('/executions'),
  'get /commands/:id/timeline': readCommand('/timeline'),
  'get /commands/:id/explain': readCommand('/explain'),
  'get /commands/:id/stream': readCommand('/stream'),
  'get /events': read('/events'),
  'patch /commands/:id': changed(
    'command.updated',
    async (server, subject) => ({ path: `/commands/${await send(server, subject)}`, body: { priority: 7 } }),
    { path: `/commands/${NOBODY}`, body: { priority: 7 } },
  ),
  'post /commands/:id/cancel': changed('execution.cancel_requested', aboutCommand('/cancel'), {
    path: `/commands/${NOBODY}/cancel`,
  }),
  'post /commands/:id/retry': changed(
    'execution.retried',
    async (server, subject) => ({ path: `/commands/${await unknown(server, subject)}/retry` }),
    { path: `/commands/${NOBODY}/retry` },
  ),
  'post /commands/:id/executions/:clientId/resolve': changed(
    'execution.resolved',
    async (server, subject) => ({
      path: `/commands/${await unknown(server, subject)}/executions/${subject.id}/resolve`,
      body: { outcome: 'completed', note: 'seen' },
    }),
    { path: `/commands/${NOBODY}/executions/nobody/resolve`, body: { outcome: 'completed', note: 'seen' } },
  ),

  'get /alerts': read('/alerts'),
  'post /alerts/:id/acknowledge': {
    allowed: ['admin', 'operator', 'technician'],
    scoped: true,
    status: 200,
    record: { audit: 'alert.acknowledged' },
    request: async (server, { id }) => ({ path: `/alerts/${await alert(server, { clientId: id })}/acknowledge` }),
    failing: () => ({ path: `/alerts/${NOBODY}/acknowledge` }),
  },

  'get /events/:clientId': ownDoor(200, { status: 403, code: 'FORBIDDEN' }, (_, { id }) => ({ path: `/events/${id}` })),
  'post /clients/:clientId/ping': ownDoor(204, { status: 403, code: 'FORBIDDEN' }, (_, { id }) => ({
    path: `/clients/${id}/ping`,
  })),
  'put /commands/:id/status': ownDoor(200, { status: 404, code: 'NOT_FOUND' }, async (server, subject) => ({
    path: `/commands/${await send(server, subject)}/status`,
    body: { status: 'accepted' },
  })),
  'post /commands/:id/result': ownDoor(200, { status: 404, code: 'NOT_FOUND' }, async (server, subject) => ({
    path: `/commands/${await send(server, subject)}/result`,
    body: { done: true },
  })),
  'post /commands/:id/error': ownDoor(200, { status: 404, code: 'NOT_FOUND' }, async (server, subject) => ({
    path: `/commands/${await send(server, subject)}/error`,
    body: { message: 'jam' },
  })),
}

/** The routes as they are served; only read as data: no handler is called. */
export const ROUTES = apiRoutes({ settings: parseSettings({}) } as Control).map(({ method, path }) => ({
  method,
  path,
  name: `${method} ${path}`,
}))

/** A client in the operators' zone, or in another. */
export async function subjectIn(server: TestServer, zone: string): Promise<Subject> {
  const id = fresh(zone)
  return { id, key: await client(server, id, [zone]), zone }
}

/** Sends a request and reads only the head of the answer: some are streams without an end. */
export async function headOf(
  server: TestServer,
  token: string | undefined,
  method: string,
  { path, body }: Request,
): Promise<{ status: number; code: string | undefined; requestId: string }> {
  const leaving = new AbortController()
  const requestId = randomUUID()
  const response = await fetch(`${server.http}/api${path}`, {
    method: method.toUpperCase(),
    headers: {
      'content-type': 'application/json',
      'x-request-id': requestId,
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    signal: leaving.signal,
  })
  const isProblem = response.headers.get('content-type')?.startsWith('application/problem+json')
  const code = isProblem ? ((await response.json()) as { code: string }).code : undefined
  leaving.abort()
  return { status: response.status, code, requestId }
}
