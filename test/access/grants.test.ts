import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { decidingGrant, membersDiffer } from '../../control/access/grants.ts'
import type { Target } from '../../schemas/commands.ts'
import { type Grant, scopeName } from '../../schemas/principals.ts'
import { expectProblem } from '../api/support.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { client, fresh, grant, principal, type TestPrincipal } from './support/principals.ts'
import { alert } from './support/routes.ts'

const everywhere = (...actions: string[]) => grant('*', { actions })
const inZone = (zone: string, ...actions: string[]) => grant({ zone }, { actions })
const withClient = (clientId: string, ...actions: string[]) => grant({ clientId }, { actions })

describe('the most specific grant decides', () => {
  const c = { id: 'c', zones: ['A', 'B'] }
  const cases: [name: string, grants: Grant[], action: string, target: typeof c, decides: string | undefined][] = [
    ['no grant', [], 'print', c, undefined],
    ['everywhere', [everywhere('print')], 'print', c, '*'],
    ['everywhere, another action', [everywhere('lock')], 'print', c, undefined],
    ['everywhere, any action', [everywhere('*')], 'print', c, '*'],
    ['one of several actions', [everywhere('lock', 'print')], 'print', c, '*'],
    ['an action is not a pattern', [everywhere('pri*')], 'print', c, undefined],
    ['its zone', [inZone('A', 'print')], 'print', c, 'zone:A'],
    ['another zone', [inZone('C', 'print')], 'print', c, undefined],
    ['no zone at all', [inZone('A', 'print')], 'print', { id: 'c', zones: [] }, undefined],
    ['itself', [withClient('c', 'print')], 'print', c, 'client:c'],
    ['another client', [withClient('d', 'print')], 'print', c, undefined],
    ['a zone of the name of the client', [inZone('c', 'print')], 'print', c, undefined],
    ['a client of the name of the zone', [withClient('A', 'print')], 'print', c, undefined],
    ['zone before *', [everywhere('*'), inZone('A', 'print')], 'print', c, 'zone:A'],
    ['zone before *, also in refusing', [everywhere('*'), inZone('A', 'lock')], 'print', c, undefined],
    ['client before zone', [inZone('A', '*'), withClient('c', 'print')], 'print', c, 'client:c'],
    ['client before zone, also in refusing', [inZone('A', '*'), withClient('c', 'lock')], 'print', c, undefined],
    ['client before *, also in refusing', [everywhere('*'), withClient('c', 'lock')], 'print', c, undefined],
    ['of two zones the first that allows it', [inZone('B', '*'), inZone('A', '*')], 'print', c, 'zone:B'],
    ['of two zones the one that allows it', [inZone('B', 'lock'), inZone('A', 'print')], 'print', c, 'zone:A'],
    [
      'two zones that do not allow it',
      [inZone('B', 'lock'), inZone('A', 'lock'), everywhere('*')],
      'print',
      c,
      undefined,
    ],
  ]
  test.each(cases)('%s', (_name, grants, action, target, decides) => {
    const found = decidingGrant(grants, action, target)
    expect(found && scopeName(found)).toBe(decides)
  })

  const zone: Target = { kind: 'zone', zone: 'A' }
  const broadcast: Target = { kind: 'broadcast' }
  test.each([
    ['a zone, everywhere', [everywhere('*')], zone, false],
    ['a zone, that zone', [inZone('A', '*')], zone, false],
    ['a zone, that zone and everywhere', [everywhere('*'), inZone('A', '*')], zone, false],
    ['a zone, another zone', [inZone('B', '*')], zone, true],
    ['a zone, a client', [inZone('A', '*'), withClient('c', '*')], zone, true],
    ['a broadcast, everywhere', [everywhere('*')], broadcast, false],
    ['a broadcast, a zone', [everywhere('*'), inZone('A', '*')], broadcast, true],
  ] as const)('%s: whether members may be decided differently', (_name, grants, target, differ) => {
    expect(membersDiffer(grants, target as never)).toBe(differ)
  })
})

let server: TestServer
beforeAll(async () => {
  server = await startServer()
  for (const [id, zones] of Object.entries({ a1: ['A'], a2: ['A'], ab: ['A', 'B'], b1: ['B'], none: [] })) {
    await client(server, id, zones)
  }
})
afterAll(() => server.stop())

const commands = async () => (await server.sql<{ n: number }>('select count(*)::int as n from commands'))[0]?.n
const send = (who: TestPrincipal, body: object) => who.api.post('/commands', { action: 'print', ...body })

/** Refused with this count, or with none, and nothing is stored. */
async function refused(who: TestPrincipal, body: object, uncovered?: number): Promise<void> {
  const before = await commands()
  const answer = await send(who, body)
  expectProblem(answer, 403, 'ACTION_NOT_ALLOWED')
  expect(answer.body.uncovered).toBe(uncovered)
  if (uncovered !== undefined) expect(answer.body.detail).toContain(`${uncovered} of `)
  expectProblem(await who.api.post('/commands/preview', { action: 'print', ...body }), 403, 'ACTION_NOT_ALLOWED')
  expect(await commands()).toBe(before)
}

describe('sending', () => {
  test('no grant, no sending', async () => {
    const operator = await principal(server, 'operator')
    await refused(operator, { clientId: 'a1' })
    await refused(operator, { zone: 'A' }, 3)
    await refused(operator, { broadcast: true }, 5)
    await refused(operator, { zone: 'empty' }, 0)
  })

  test('to clients, zones and all, as far as the grants go', async () => {
    const operator = await principal(server, 'operator', [inZone('A', 'print', 'lock'), withClient('none', 'print')])
    for (const id of ['a1', 'a2', 'ab', 'none']) expect((await send(operator, { clientId: id })).status, id).toBe(201)
    expect((await send(operator, { clientId: 'none', action: 'print' })).status).toBe(201)
    await refused(operator, { clientId: 'none', action: 'lock' })
    await refused(operator, { clientId: 'b1' })
    expect((await send(operator, { zone: 'A', action: 'lock' })).body.total).toBe(3)
    await refused(operator, { zone: 'B' }, 1)
    await refused(operator, { broadcast: true }, 1)
    await refused(operator, { zone: 'A', action: 'reset' }, 3)
    expectProblem(await send(operator, { clientId: 'nobody' }), 403, 'ACTION_NOT_ALLOWED')
    expectProblem(await send(operator, { zone: 'empty' }), 409, 'NO_TARGETS')
  })

  test('a client that its own grant leaves out stops a zone and a broadcast; a disabled one does not', async () => {
    const operator = await principal(server, 'operator', [everywhere('*'), withClient('a1', 'lock')])
    await refused(operator, { zone: 'A' }, 1)
    await refused(operator, { broadcast: true }, 1)
    expect((await send(operator, { zone: 'A', action: 'lock' })).status).toBe(201)
    await server.api.post('/clients/a1/disable')
    expect((await send(operator, { zone: 'A' })).body).toMatchObject({ total: 2, excluded: [{ clientId: 'a1' }] })
    await server.api.post('/clients/a1/enable')
  })

  test('who joins a zone while its command is stored is judged like everybody else', async () => {
    // The decision was made for who was there; then the statement waits for a client, and finds one more member than that.
    const zone = fresh('zone')
    await client(server, `${zone}-1`, [zone])
    await client(server, `${zone}-2`)
    const operator = await principal(server, 'operator', [withClient(`${zone}-1`, '*'), inZone('elsewhere', '*')])
    let joined = 0
    let refusals = 0
    for (let round = 0; round < 20; round++) {
      const sent = send(operator, { zone })
      const join = server.api.send('PUT', `/zones/${zone}/clients/${zone}-2`)
      const [answer] = await Promise.all([sent, join])
      // Whatever came first, nobody got it who is not covered.
      if (answer.status === 201) expect(answer.body.total, `round ${round}`).toBe(1)
      else expectProblem(answer, 403, 'ACTION_NOT_ALLOWED')
      answer.status === 201 ? joined++ : refusals++
      await server.api.send('DELETE', `/zones/${zone}/clients/${zone}-2`)
    }
    expect(joined + refusals).toBe(20)
    const got = await server.sql('select 1 from executions where client_id = $1', [`${zone}-2`])
    expect(got).toEqual([])
  })

  test('a client that leaves its zone is not covered any more', async () => {
    await client(server, 'mover', ['A'])
    const operator = await principal(server, 'operator', [inZone('A', '*')])
    expect((await send(operator, { clientId: 'mover' })).status).toBe(201)
    await server.api.send('DELETE', '/zones/A/clients/mover')
    await refused(operator, { clientId: 'mover' })
  })

  test('new grants are in force with the next request', async () => {
    const operator = await principal(server, 'operator', [everywhere('*')])
    expect((await send(operator, { clientId: 'a1' })).status).toBe(201)
    await server.api.send('PUT', `/principals/${operator.id}/grants`, [everywhere('lock')])
    await refused(operator, { clientId: 'a1' })
    await server.api.send('PUT', `/principals/${operator.id}/grants`, [])
    await refused(operator, { clientId: 'a1', action: 'lock' })
  })
})

describe('changing a command', () => {
  const note = { outcome: 'failed', note: 'looked' }
  const changes: [name: string, method: string, path: string, body?: object][] = [
    ['cancel', 'POST', '/cancel'],
    ['retry', 'POST', '/retry'],
    ['patch', 'PATCH', '', { priority: 9 }],
  ]

  test.each(changes)('%s needs the grant for every execution that it is about', async (_name, method, path, body) => {
    const operator = await principal(server, 'operator', [inZone('own', 'print')])
    const [zone, own1, own2, out1, out2] = ['zone', 'own', 'own', 'out', 'out'].map(fresh) as [string, ...string[]]
    for (const id of [own1, own2]) await client(server, id as string, [zone, 'own'])
    for (const id of [out1, out2]) await client(server, id as string, [zone])
    const { id } = (await server.api.post('/commands', { zone, action: 'print' })).body
    const all = await operator.api.send(method, `/commands/${id}${path}`, body)
    expectProblem(all, 403, 'ACTION_NOT_ALLOWED')
    expect(all.body).toMatchObject({ uncovered: 2, detail: expect.stringContaining('2 of 4 targets') })
    expect((await server.api.get(`/commands/${id}`)).body).toMatchObject({ counts: { pending: 4 }, priority: 5 })
    if (method === 'PATCH') return
    const some = await operator.api.send(method, `/commands/${id}${path}`, { clientIds: [own1, own2] })
    expect(some.status).toBe(200)
    expectProblem(
      await operator.api.send(method, `/commands/${id}${path}`, { clientIds: [own1, out1] }),
      403,
      'ACTION_NOT_ALLOWED',
    )
  })

  test('resolve needs it for the one client, and for the action of the command', async () => {
    const operator = await principal(server, 'operator', [inZone('A', 'print')])
    const unknown = async (clientId: string, action: string): Promise<string> => {
      const { id } = (await server.api.post('/commands', { clientId, action })).body
      await server.sql(`update executions set status = 'outcome_unknown' where command_id = $1`, [id])
      return `/commands/${id}/executions/${clientId}/resolve`
    }
    expect((await operator.api.post(await unknown('a1', 'print'), note)).status).toBe(200)
    expectProblem(await operator.api.post(await unknown('a1', 'lock'), note), 403, 'ACTION_NOT_ALLOWED')
    expectProblem(await operator.api.post(await unknown('b1', 'print'), note), 403, 'ACTION_NOT_ALLOWED')
    expectProblem(
      await operator.api.post(await unknown('b1', 'print'), { ...note, outcome: 'retry' }),
      403,
      'ACTION_NOT_ALLOWED',
    )
  })
})

describe('acknowledging an alert', () => {
  const acknowledge = async (who: TestPrincipal, about: { clientId?: string; commandId?: string }) =>
    (await who.api.post(`/alerts/${await alert(server, about)}/acknowledge`)).body.code

  test('about a client needs a grant that reaches it, whatever its actions', async () => {
    const operator = await principal(server, 'operator', [inZone('A', 'print'), withClient('none', 'lock')])
    for (const clientId of ['a1', 'ab', 'none']) expect(await acknowledge(operator, { clientId })).toBeUndefined()
    for (const clientId of ['b1', 'gone']) expect(await acknowledge(operator, { clientId })).toBe('ACTION_NOT_ALLOWED')
  })

  test('about a command needs the grant for its action and its clients', async () => {
    const operator = await principal(server, 'operator', [inZone('A', 'print')])
    const about = async (body: object) => ({ commandId: (await server.api.post('/commands', body)).body.id })
    expect(await acknowledge(operator, await about({ zone: 'A', action: 'print' }))).toBeUndefined()
    expect(await acknowledge(operator, await about({ zone: 'A', action: 'lock' }))).toBe('ACTION_NOT_ALLOWED')
    expect(await acknowledge(operator, await about({ zone: 'B', action: 'print' }))).toBe('ACTION_NOT_ALLOWED')
    const both = await about({ zone: 'B', action: 'print' })
    expect(await acknowledge(operator, { ...both, clientId: 'ab' })).toBeUndefined()
  })

  test('about the server itself needs a grant everywhere', async () => {
    expect(await acknowledge(await principal(server, 'operator', [inZone('A', '*')]), {})).toBe('ACTION_NOT_ALLOWED')
    expect(await acknowledge(await principal(server, 'operator', [everywhere('print')]), {})).toBeUndefined()
    expect(await acknowledge(await principal(server, 'technician'), {})).toBeUndefined()
  })
})

describe('the list of grants', () => {
  test('is read as it was put, and replaced as a whole', async () => {
    const operator = await principal(server, 'operator')
    const path = `/principals/${operator.id}/grants`
    expect((await server.api.get(path)).body).toEqual([])
    const grants = [everywhere('*'), inZone('A', 'print'), withClient('a1', 'print', 'lock')]
    expect(await server.api.send('PUT', path, grants)).toMatchObject({ status: 200, body: grants })
    expect((await server.api.get(path)).body).toEqual(grants)
    expect((await server.api.send('PUT', path, [grants[1]])).body).toEqual([grants[1]])
    expect((await server.api.get(path)).body).toEqual([grants[1]])
  })

  const valid = grant('*')
  const wrong: [name: string, body: unknown, path: string][] = [
    ['no list', valid, 'body'],
    ['no scope', [{ ...valid, scope: undefined }], '0.scope'],
    ['a scope that is none', [{ ...valid, scope: 'A' }], '0.scope'],
    ['a scope with two names', [{ ...valid, scope: { zone: 'A', clientId: 'c' } }], '0.scope'],
    ['a zone that is no id', [{ ...valid, scope: { zone: '../A' } }], '0.scope.zone'],
    ['no actions', [{ ...valid, actions: [] }], '0.actions'],
    ['an action that is no id', [{ ...valid, actions: ['print', '**'] }], '0.actions.1'],
    ['no day limit', [{ ...valid, maxCommandsPerDay: undefined }], '0.maxCommandsPerDay'],
    ['a negative limit', [{ ...valid, commandsPerMinute: -1 }], '0.commandsPerMinute'],
    ['a broken limit', [{ ...valid, commandsPerMinute: 1.5 }], '0.commandsPerMinute'],
    ['an unknown field', [{ ...valid, comment: 'x' }], '0'],
    ['one scope twice', [grant({ zone: 'A' }), valid, grant({ zone: 'A' })], '2.scope'],
    ['too many', Array.from({ length: 201 }, (_, index) => grant({ clientId: `c${index}` })), 'body'],
  ]
  test.each(wrong)('%s is INVALID_INPUT and changes nothing', async (_name, body, at) => {
    const operator = await principal(server, 'operator', [valid])
    const answer = await server.api.send('PUT', `/principals/${operator.id}/grants`, body)
    expectProblem(answer, 400, 'INVALID_INPUT')
    expect(answer.body.errors.map(({ path }: { path: string }) => path)).toContain(at)
    expect((await server.api.get(`/principals/${operator.id}/grants`)).body).toEqual([valid])
  })

  test.each(['admin', 'technician', 'viewer'] as const)('means nothing for a %s, and is refused', async (role) => {
    const { id } = await principal(server, role)
    expectProblem(await server.api.send('PUT', `/principals/${id}/grants`, [valid]), 409, 'CONFLICT')
    expect((await server.api.send('PUT', `/principals/${id}/grants`, [])).status).toBe(200)
  })
})
