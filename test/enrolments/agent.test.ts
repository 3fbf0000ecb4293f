import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { formatEnrolmentLink, parseEnrolmentLink } from '../../schemas/enrolments.ts'
import { type Cli, cliFor, type Running, run, start } from '../cli/support/run.ts'
import { issueCertificate, tlsSettings } from '../support/certificate.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { hasTool } from '../support/tools.ts'
import { until } from '../support/until.ts'
import { enrolment, usesOf } from './support/codes.ts'
import { decodeQrText } from './support/qr-text.ts'

// Each test starts processes; on a busy machine that takes its time.
vi.setConfig({ testTimeout: 90_000 })
const PATIENCE_MS = 60_000

let server: TestServer
let cli: Cli
beforeAll(async () => {
  server = await startServer({ HTTP_LOGIN_FAILURES_PER_MINUTE: 100_000 })
  cli = cliFor(server)
})
afterAll(() => server.stop())

function folder(): string {
  const made = mkdtempSync(join(tmpdir(), 'signalbox-enrol-'))
  onTestFinished(() => rmSync(made, { recursive: true }))
  return made
}

/** An agent that has nothing but what the line says, in a folder of its own. */
function agent(cwd: string, args: string[], env: Record<string, string> = {}): Running {
  const running = start(['agent', ...args], { cwd, env })
  onTestFinished(() => void running.process.kill('SIGKILL'))
  return running
}
const connected = (running: Running): Promise<unknown> =>
  until(() => running.output.stderr.includes('connected: commands can come'), 'it is connected', PATIENCE_MS)
async function stopped(running: Running): Promise<void> {
  running.process.kill('SIGTERM')
  expect(await running.ended).toMatchObject({ code: 0 })
}
const kept = (file: string): Record<string, string> => JSON.parse(readFileSync(file, 'utf8'))

describe('signalbox enrolments', () => {
  test('creates a link and a QR code that says the same, lists, and revokes', async () => {
    const options = '--zones Q1,Q2 --id-prefix q- --max-uses 2 --ttl 600 --device-url https://devices.example.com:3443/'
    const { code, stdout, stderr } = await cli(`enrolments create ${options} --name`, 'dock 4')
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    const [facts, qr, link] = stdout.trimEnd().split('\n\n')
    expect(facts).toMatch(/^zones +Q1, Q2$/m)
    expect(facts).toMatch(/^expiresAt +\d{4}-/m)
    expect(link).toMatch(/^https:\/\/devices\.example\.com:3443\/#sbe_[A-Za-z0-9_-]{43}$/)
    expect(decodeQrText(qr as string)).toBe(link)

    const [, id] = /^id +(\S+)$/m.exec(facts as string) ?? []
    const listed = await cli('enrolments list --limit 200')
    expect(listed.stdout).toMatch(new RegExp(`^${id} +dock 4 +Q1, Q2 +q- +0 of 2 .* admin$`, 'm'))
    expect((await cli(`enrolments revoke ${id}`)).stdout).toBe(`${id} is revoked\n`)
    expect((await cli('enrolments list --limit 200')).stdout).not.toContain(id)
    expect(await cli(`enrolments revoke ${id}`)).toMatchObject({
      code: 3,
      stderr: expect.stringContaining('NOT_FOUND'),
    })
  })

  test('prints one document with --json; the link is to --url if nothing else is said', async () => {
    const made = await cli.json('enrolments create')
    expect(made).toMatchObject({ enrolment: { maxUses: 1, zones: [] }, link: `${server.http}/#${made.code}` })
    const light = await cli('enrolments create --invert')
    expect(light.stderr).toContain('http: whoever is on the way')
    const [, qr, link] = light.stdout.trimEnd().split('\n\n')
    expect(decodeQrText(qr as string, { invert: true })).toBe(link)
  })

  test.each([
    ['--max-uses 0'],
    ['--ttl 0'],
    ['--device-url nonsense'],
    ['--device-url mqtt://x'],
    ['--device-url https://x/#y'],
  ])('%s is wrong usage, and makes nothing', async (wrong) => {
    const count = async () => (await server.sql('select 1 from enrolments')).length
    const before = await count()
    expect(await cli(`enrolments create ${wrong}`)).toMatchObject({ code: 2, stdout: '' })
    expect(await count()).toBe(before)
  })
})

test.each([
  ['https://a.example/#', true],
  ['https://a.example#', true],
  ['http://127.0.0.1:3000/#', true],
  ['https://a.example/proxy/#', true],
  ['https://[::1]:3443/#', true],
  ['mqtt://a.example/#', false],
  ['a.example/#', false],
  ['https://#', false],
  ['https://a.example/?x=1#', false],
])('a link that begins %s is one: %s', (beginning, good) => {
  const code = `sbe_${'x'.repeat(43)}`
  const parsed = parseEnrolmentLink(`${beginning}${code}`)
  expect(parsed !== undefined).toBe(good)
  if (parsed) expect(parseEnrolmentLink(formatEnrolmentLink(parsed))).toEqual(parsed)
  expect(parseEnrolmentLink(`${beginning}${code}x`)).toBeUndefined()
  expect(parseEnrolmentLink(beginning)).toBeUndefined()
})

describe('signalbox agent --enrol', () => {
  test('obtains id and key, completes a command, and goes on without the code at later starts', async () => {
    const cwd = folder()
    const { id, code } = await enrolment(server, { zones: ['R1'], idPrefix: 'pda-' })
    const link = formatEnrolmentLink({ url: server.http, code })
    const first = agent(cwd, ['--enrol', link, '--url', server.mqtt])
    await connected(first)
    const file = join(cwd, '.data/agents/credentials.json')
    expect(statSync(file).mode & 0o777).toBe(0o600)
    const { clientId, clientKey } = kept(file)
    expect(clientId).toMatch(/^pda-[0-9a-f]{12}$/)
    expect(kept(file)).toEqual({ clientId, clientKey, url: server.mqtt })
    const sent = await cli('send --zone R1 --action message --payload {"text":"one"} --wait 60')
    expect(sent).toMatchObject({ code: 0 })
    await stopped(first)

    // With the code, as a service's unit has it, and without: neither asks for another client.
    for (const args of [['--enrol', link], []]) {
      const again = agent(cwd, args)
      await connected(again)
      const sending = ['send', '--client', clientId as string, '--action', 'message', '--payload', '{"text":"again"}']
      expect(await run([...sending, '--wait', '60'], { env: cli.env })).toMatchObject({ code: 0 })
      expect(again.output.stdout).toBe('again\n')
      expect(again.output.stderr.includes('already enrolled')).toBe(args.length > 0)
      await stopped(again)
    }
    expect(await usesOf(server, id)).toEqual({ uses: 1, clients: 1 })
    for (const secret of [code, clientKey as string]) expect(first.output.stderr).not.toContain(secret.slice(4))
  })

  test('that begin at once with one file of credentials are one client', async () => {
    const cwd = folder()
    const { id, code } = await enrolment(server, { maxUses: 4 })
    const link = formatEnrolmentLink({ url: server.http, code })
    const memories = [1, 2, 3, 4].map((number) => ['--journal', join(cwd, `memory-${number}`)])
    const agents = memories.map((memory) =>
      agent(cwd, ['--enrol', link, '--url', server.mqtt, '--credentials', join(cwd, 'who.json'), ...memory]),
    )
    await Promise.all(agents.map(connected))
    expect(await usesOf(server, id)).toEqual({ uses: 1, clients: 1 })
    expect(readdirSync(cwd).filter((name) => name.endsWith('.new'))).toEqual([])
    for (const running of agents) running.process.kill('SIGKILL')
  })

  test('takes the link from the environment and the id from --id, and keeps both where it is told', async () => {
    const cwd = folder()
    const { code } = await enrolment(server)
    const SIGNALBOX_ENROL = formatEnrolmentLink({ url: server.http, code })
    const args = ['--id', 'named', '--url', server.mqtt, '--credentials', join(cwd, 'own/who.json')]
    const running = agent(cwd, args, { SIGNALBOX_ENROL })
    await connected(running)
    expect(kept(join(cwd, 'own/who.json'))).toMatchObject({ clientId: 'named' })
    await stopped(running)
    const other = await run(['agent', ...args.with(1, 'other')], { cwd })
    expect(other).toMatchObject({ code: 2, stderr: expect.stringContaining('is of client named, not of other') })
  })

  test('keeps the credentials in the folder of --journal', async () => {
    const cwd = folder()
    const { code } = await enrolment(server)
    const link = formatEnrolmentLink({ url: server.http, code })
    const running = agent(cwd, ['--enrol', link, '--url', server.mqtt, '--journal', join(cwd, 'j/journal.sqlite')])
    await connected(running)
    expect(kept(join(cwd, 'j/credentials.json')).clientId).toMatch(/^device-/)
    await stopped(running)
  })

  test('that is refused ends with 3, says why without the code, and leaves nothing', async () => {
    const cwd = folder()
    await server.api.post('/clients', { id: 'occupied' })
    const spent = await enrolment(server)
    await server.sql('update enrolments set uses = max_uses where id = $1', [spent.id])
    const unused = await enrolment(server, { idPrefix: 'x-' })
    const open = await enrolment(server)
    for (const [code, args, why] of [
      [`sbe_${'x'.repeat(43)}`, [], 'is not valid'],
      [spent.code, [], 'was used as often as it may be'],
      [unused.code, ['--id', 'y-1'], 'must begin with "x-"'],
      [open.code, ['--id', 'occupied'], 'There already is a client occupied'],
    ] as const) {
      const link = formatEnrolmentLink({ url: server.http, code })
      const { code: exit, stderr } = await run(['agent', '--enrol', link, ...args], { cwd })
      expect({ exit, stderr }).toEqual({ exit: 3, stderr: expect.stringContaining(why) })
      expect(stderr).not.toContain(code.slice(4))
      expect(existsSync(join(cwd, '.data/agents/credentials.json'))).toBe(false)
    }
    expect(await usesOf(server, open.id)).toEqual({ uses: 0, clients: 0 })
  })

  test.each([
    [[], 'give --id and the client key'],
    [['--key', `sbk_${'x'.repeat(43)}`], 'give --id and the client key'],
    [['--enrol', 'nonsense'], 'give the whole link'],
    [['--enrol', 'https://a.example/'], 'give the whole link'],
    [['--enrol', `sbe_${'x'.repeat(43)}`], 'give the whole link'],
  ])('%j is wrong usage', async (args, why) => {
    expect(await run(['agent', ...args], { cwd: folder() })).toMatchObject({
      code: 2,
      stderr: expect.stringContaining(why),
    })
  })

  test('with a file of credentials that is none ends with 2 and leaves it alone', async () => {
    const cwd = folder()
    const file = join(cwd, 'who.json')
    for (const text of ['', '{}', '{"clientKey":"short"}', 'null']) {
      writeFileSync(file, text)
      const ended = await run(['agent', '--credentials', file], { cwd })
      expect(ended).toMatchObject({ code: 2, stderr: expect.stringContaining(`${file} is no file of credentials`) })
      expect(readFileSync(file, 'utf8')).toBe(text)
    }
  })

  test('repeats while nobody answers, or somebody else does; an answer that is lost makes no second client', async () => {
    const cwd = folder()
    const { id, code } = await enrolment(server, { zones: ['L1'] })
    const asked: string[] = []
    // What a device meets on its way: no answer, a captive portal, a proxy without a server, and a lost answer.
    const obstacles: ((response: ServerResponse, forward: () => Promise<Response>) => unknown)[] = [
      (response) => response.destroy(),
      (response) => response.writeHead(302, { location: `${server.http}/login` }).end(),
      (response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<h1>Welcome</h1>'),
      (response) => response.writeHead(502).end(),
      (response) => response.writeHead(429, { 'retry-after': '0' }).end(),
      async (response, forward) => {
        expect((await forward()).status).toBe(201)
        response.destroy()
      },
      async (response, forward) => {
        const answer = await forward()
        response.writeHead(answer.status).end(await answer.text())
      },
    ]
    const way = createServer(async (request: IncomingMessage, response) => {
      const body = (await request.toArray()).join('')
      const obstacle = obstacles[asked.length]
      asked.push(body)
      await obstacle?.(response, () => fetch(`${server.http}${request.url}`, { method: 'POST', body }))
    }).listen(0, '127.0.0.1')
    await once(way, 'listening')
    onTestFinished(() => void way.close())
    const url = `http://127.0.0.1:${(way.address() as AddressInfo).port}`
    const args = ['--enrol', formatEnrolmentLink({ url, code }), '--url', server.mqtt]

    // In the middle of it the device loses its power: what it asked with is kept.
    const first = agent(cwd, args)
    await until(() => asked.length === 3, 'it asked three times', PATIENCE_MS)
    first.process.kill('SIGKILL')
    await first.ended
    const file = join(cwd, '.data/agents/credentials.json')
    expect(Object.keys(kept(file))).toEqual(['clientKey'])
    expect(statSync(file).mode & 0o777).toBe(0o600)
    const second = agent(cwd, args)
    await connected(second)
    expect(asked).toHaveLength(obstacles.length)
    expect(new Set(asked).size).toBe(1)
    expect(await usesOf(server, id)).toEqual({ uses: 1, clients: 1 })
    expect(await cli('send --zone L1 --action message --payload {"text":"here"} --wait 60')).toMatchObject({ code: 0 })
    await stopped(second)
  })

  test('ends with 0 at a signal while it waits for the server', async () => {
    const link = formatEnrolmentLink({ url: 'http://127.0.0.1:9', code: `sbe_${'x'.repeat(43)}` })
    const waiting = agent(folder(), ['--enrol', link])
    await until(() => waiting.output.stderr.includes('Could not enrol'), 'it tried', PATIENCE_MS)
    await stopped(waiting)
  })
})

test.skipIf(!hasTool('openssl', 'openssl'))('an agent enrols over HTTPS and connects over TLS', async () => {
  const cwd = folder()
  issueCertificate(cwd, 'enrolment')
  const secure = await startServer(tlsSettings(cwd))
  onTestFinished(() => secure.stop())
  const { https, mqtts } = secure.tls as NonNullable<TestServer['tls']>
  const link = async () => formatEnrolmentLink({ url: https, code: (await enrolment(secure, { zones: ['S1'] })).code })

  // Who cannot be sure of the server does not tell it the code.
  const doubtful = agent(cwd, ['--enrol', await link(), '--credentials', 'doubtful.json'])
  await until(() => doubtful.output.stderr.includes('self-signed certificate'), 'it doubts', PATIENCE_MS)
  await stopped(doubtful)
  expect(await secure.sql('select 1 from clients')).toEqual([])

  const env = { NODE_EXTRA_CA_CERTS: join(cwd, 'server.crt') }
  const sure = agent(cwd, ['--enrol', await link(), '--url', mqtts], env)
  await connected(sure)
  expect(sure.output.stderr).not.toContain('whoever is on the way')
  const send = ['send', '--zone', 'S1', '--action', 'message', '--payload', '{"text":"safe"}', '--wait', '60']
  expect(await run(send, { env: cliFor(secure).env })).toMatchObject({ code: 0 })
  await stopped(sure)

  const guessing = agent(cwd, ['--enrol', await link(), '--credentials', 'guess.json'], env)
  await until(() => guessing.output.stderr.includes('"msg":"enrolled"'), 'it is enrolled', PATIENCE_MS)
  expect(kept(join(cwd, 'guess.json')).url).toBe('mqtts://127.0.0.1:8883')
  await stopped(guessing)
})
