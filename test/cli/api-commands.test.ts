import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { fleetOf } from './support/fleet.ts'
import { type Cli, cliFor, run, start } from './support/run.ts'

// Each test starts processes; on a busy machine that takes its time.
vi.setConfig({ testTimeout: 90_000 })

let server: TestServer
let cli: Cli
const directory = mkdtempSync(join(tmpdir(), 'signalbox-cli-'))
beforeAll(async () => {
  server = await startServer()
  cli = cliFor(server)
})
afterAll(async () => {
  await server.stop()
  rmSync(directory, { recursive: true })
})
const file = (name: string, text: string): string => {
  const path = join(directory, name)
  writeFileSync(path, text)
  return path
}

test.concurrent('a client is created, shown, changed, disabled, given a new key and deleted', async () => {
  const created = await cli.json('clients create c1 --zones C,D --max-in-flight 3 --metadata', '{"floor":2}')
  expect(created).toMatchObject({ client: { id: 'c1', zones: ['C', 'D'], maxInFlight: 3, metadata: { floor: 2 } } })
  expect((await cli('clients create c2 --name', 'Second printer')).stdout).toMatch(/key, shown only now: sbk_/)

  expect(await cli.json('clients show c1')).toMatchObject({ id: 'c1', presence: 'offline' })
  expect((await cli('clients show c1')).stdout).toMatch(/^presence +offline$/m)
  expect((await cli.json('clients list --zone C')).items).toMatchObject([{ id: 'c1' }])
  expect((await cli('clients list --search Second')).stdout).toMatch(/^ID .*\nc2 +offline .* Second printer/)
  expect((await cli('clients list --zone nowhere')).stdout).toBe('no clients\n')
  const first = await cli.json('clients list --limit 1')
  expect(first).toMatchObject({ items: [{ id: 'c1' }], nextCursor: expect.any(String) })

  expect(await cli.json('clients update c1 --no-zones --name Renamed')).toMatchObject({ zones: [], name: 'Renamed' })
  expect((await cli('clients disable c1')).stdout).toBe('c1 is disabled\n')
  expect((await cli.json('clients list --disabled')).items).toMatchObject([{ id: 'c1', disabled: true }])
  expect(await cli.json('clients enable c1')).toMatchObject({ disabled: false })
  const { clientKey } = await cli.json('clients rotate-key c1 --grace 60')
  expect(clientKey).toMatch(/^sbk_/)
  expect(clientKey).not.toBe(created.clientKey)

  await cli.json('send --client c1 --action print')
  expect((await cli.json('clients queue c1')).items).toMatchObject([{ action: 'print', status: 'pending' }])
  expect((await cli('clients queue c2')).stdout).toBe('nothing waits for c2\n')
  expect((await cli('clients delete c1')).stdout).toBe('c1 is deleted\n')
  expect(await cli('clients show c1')).toMatchObject({ code: 3, stderr: expect.stringContaining('NOT_FOUND') })
})

test.concurrent('clients are imported from CSV and JSON, row by row', async () => {
  const csv = file(
    'fleet.csv',
    'id,name,zones,maxInFlight,metadata.floor\r\ni1,"One, ""the first""",I;J,2,3\r\ni2,,,,\ni1,again,,,\nno good,,,,\n',
  )
  const report = await run(['clients', 'import', csv, '--json', '--concurrency', '1'], { env: cli.env })
  expect(report).toMatchObject({ code: 1, stderr: '2 created, 1 skipped, 1 failed\n' })
  expect(JSON.parse(report.stdout)).toMatchObject({
    created: 2,
    skipped: 1,
    failed: 1,
    rows: [
      { row: 1, id: 'i1', outcome: 'created', clientKey: expect.stringMatching(/^sbk_/) },
      { row: 2, id: 'i2', outcome: 'created' },
      { row: 3, id: 'i1', outcome: 'skipped', code: 'CONFLICT' },
      { row: 4, id: 'no good', outcome: 'failed', code: 'INVALID_INPUT' },
    ],
  })
  expect(await cli.json('clients show i1')).toMatchObject({
    name: 'One, "the first"',
    zones: ['I', 'J'],
    maxInFlight: 2,
    metadata: { floor: '3' },
  })
  const many = Array.from({ length: 300 }, (_, index) => ({ id: `m${index}`, zones: ['M'] }))
  const json = await cli(`clients import ${file('fleet.json', JSON.stringify(many))}`)
  expect(json).toMatchObject({ code: 0, stderr: '300 created, 0 skipped, 0 failed\n' })
  expect(json.stdout.split('\n')[300]).toMatch(/^300 +m299 +created +sbk_/)
  expect((await cli.json('clients list --zone M --limit 250')).items).toHaveLength(250)
  expect((await cli.json('zones list')).items).toContainEqual({ zone: 'M', clients: 300, online: 0 })
  expect(await cli(`clients import ${file('bad.csv', 'id,colour\na,b')}`)).toMatchObject({ code: 2, stdout: '' })
  expect(await cli('clients import nowhere.csv')).toMatchObject({ code: 2, stdout: '' })
})

test.concurrent('zones have members', async () => {
  await cli.json('clients create z1')
  expect(await cli.json('zones add Z z1')).toMatchObject({ zones: ['Z'] })
  expect((await cli('zones list')).stdout).toMatch(/^Z +1 +0$/m)
  expect((await cli('zones remove Z z1')).stdout).toBe('z1 is not in Z any more\n')
  expect((await cli.json('zones list')).items).not.toContainEqual(expect.objectContaining({ zone: 'Z' }))
})

test.concurrent('actions are put from flags or a file, shown, listed and deleted', async () => {
  const schema = '{"type":"object","required":["copies"]}'
  await cli.json('actions put stamp --delivery at_least_once --max-retries 1 --schema', schema)
  const shown = await cli.json('actions show stamp')
  expect(shown).toMatchObject({ delivery: 'at_least_once', maxRetries: 1, payloadSchema: { required: ['copies'] } })
  // What `show --json` prints can be put again; options win.
  await cli.json(`actions put stamp --description stamps --file ${file('stamp.json', JSON.stringify(shown))}`)
  expect((await cli('actions list')).stdout).toMatch(/^stamp +at_least_once +- +1 +yes +stamps$/m)
  expect(await cli('send --broadcast --action stamp --payload {}')).toMatchObject({
    code: 3,
    stdout: '',
    stderr: expect.stringMatching(/INVALID_INPUT.*copies/),
  })
  expect((await cli('actions delete stamp')).stdout).toBe('stamp is forgotten\n')
  expect((await cli('actions show stamp')).code).toBe(3)
})

test.concurrent('a zone command is previewed, sent, waited for, and looked at from every side', async () => {
  await using fleet = fleetOf(server, { lock: () => ({ locked: true }) })
  await Promise.all(['w1', 'w2', 'w3'].map((id) => fleet.add(id, ['W'])))
  const preview = await cli.json('send --zone W --action lock --preview')
  expect(preview).toMatchObject({ total: 3, online: 3, excluded: [] })
  expect((await cli('send --zone W --action lock --preview')).stdout).toMatch(/^w1 +online +0 +-$/m)

  const sent = await cli(`send --zone W --action lock --wait --expect ${preview.hash} --json`)
  expect(sent).toMatchObject({ code: 0, stderr: expect.stringContaining('3 of 3 settled: completed 3') })
  expect(sent.stderr).not.toContain('\u001b')
  const command = JSON.parse(sent.stdout)
  expect(command).toMatchObject({ status: 'completed', counts: { completed: 3 } })

  expect((await cli(`commands show ${command.id}`)).stdout).toMatch(/^executions +3: completed 3$/m)
  expect((await cli.json(`commands executions ${command.id}`)).items).toHaveLength(3)
  expect((await cli(`commands executions ${command.id}`)).stdout).toMatch(/^w1 +completed +1 .*\{"locked":true\}$/m)
  const { items } = await cli.json(`commands timeline ${command.id} --client w2`)
  expect(items.map(({ type }: { type: string }) => type)).toContain('execution.completed')
  expect((await cli(`commands timeline ${command.id}`)).stdout).toMatch(/^\S+ +command\.created /)
  expect((await cli(`commands explain ${command.id}`)).stdout).toBe('nothing is unfinished\n')
  expect((await cli.json('commands list --zone W --action lock')).items).toMatchObject([{ id: command.id }])
  expect((await cli('commands list --zone W --limit 1')).stdout).toMatch(
    new RegExp(`\n${command.id} .*zone W +completed`),
  )
  // The same hash does not fit other targets.
  await cli.json('zones remove W w3')
  const changed = await cli(`send --zone W --action lock --expect ${preview.hash}`)
  expect(changed).toMatchObject({ code: 3, stdout: '', stderr: expect.stringContaining('removed: w3') })
})

test.concurrent('what did not complete is exit code 1, and can be explained, changed, cancelled and retried', async () => {
  await cli.json('clients create off1')
  const waited = await cli('send --client off1 --action print --payload {"copies":1} --wait 0.1 --json')
  expect(waited).toMatchObject({ code: 1, stderr: expect.stringContaining('not settled within 0.1 s: pending 1') })
  const { id } = JSON.parse(waited.stdout)
  expect((await cli(`commands explain ${id}`)).stdout).toMatch(/^off1 +pending +1 +client_offline /m)
  expect(await cli.json(`commands update ${id} --priority 9`)).toMatchObject({ priority: 9 })
  expect((await cli(`commands cancel ${id} --reason`, 'wrong paper')).stdout).toMatch(/^1 cancelled, 0 asked/)
  expect(await cli.json(`commands cancel ${id} --clients off1`)).toEqual({ cancelled: 0, requested: 0, tooLate: 1 })
  expect(await cli.json(`commands retry ${id} --ttl 60`)).toEqual({ retried: 0, skipped: 1 })

  await using fleet = fleetOf(server, {
    explode() {
      throw new Error('bang')
    },
  })
  await fleet.add('f1')
  const failed = await cli('send --client f1 --action explode --wait 20')
  expect(failed).toMatchObject({ code: 1, stderr: expect.stringContaining('not every execution completed: failed 1') })
  expect(failed.stdout).toMatch(/^error +\S+: bang$/m)
})

test.concurrent('an unknown outcome is resolved by the word of whoever looked', async () => {
  const release = Promise.withResolvers<void>()
  {
    await using fleet = fleetOf(server, {
      async slow() {
        release.resolve()
        await new Promise(() => undefined)
      },
    })
    await fleet.add('u1')
    const { id } = await cli.json('send --client u1 --action slow --timeout 1')
    await release.promise
    await until(async () => (await server.api.get(`/commands/${id}`)).body.status === 'outcome_unknown', 'unknown')
    const resolved = await cli.json(`commands resolve ${id} u1 --outcome completed --note`, 'saw it')
    expect(resolved).toMatchObject({ status: 'completed' })
    expect(await cli(`commands resolve ${id} u1 --outcome failed --note x`)).toMatchObject({ code: 3 })
    expect(await cli(`commands resolve ${id} u1 --outcome perhaps --note x`)).toMatchObject({ code: 2 })
  }
})

test.concurrent('a repeated Idempotency-Key is one command; a payload can come from standard input', async () => {
  await cli.json('clients create k1')
  const first = await cli.json('send --client k1 --action print --idempotency-key once-only')
  expect(await cli.json('send --client k1 --action print --idempotency-key once-only')).toMatchObject({ id: first.id })
  expect(await cli('send --client k1 --action lock --idempotency-key once-only')).toMatchObject({
    code: 3,
    stderr: expect.stringContaining('IDEMPOTENCY_MISMATCH'),
  })
  const args = ['send', '--client', 'k1', '--action', 'print', '--payload-file', '-', '--json']
  const piped = await run(args, { env: cli.env, stdin: '{"copies":2}' })
  expect(JSON.parse(piped.stdout)).toMatchObject({ payload: { copies: 2 } })
})

test.concurrent('each way to go wrong has its exit code, and nothing of it is on stdout', async () => {
  const wrong = [
    'send --client a --zone b --action x',
    'send --action x',
    'send --client a --action x --payload {',
    'send --client a --action x --priority 11',
    'clients update c1',
    'clients list --limit 0',
    'clients nonsense',
    'nonsense',
    'clients list --url nonsense',
    'watch 01 --client a',
  ]
  const runs = await Promise.all(wrong.map(async (line) => ({ line, ...(await cli(line)) })))
  for (const one of runs) expect(one).toMatchObject({ line: one.line, code: 2, stdout: '' })
  expect(await run(['clients', 'list'])).toMatchObject({ code: 2, stdout: '' })
  const refused = await run(['clients', 'list', '--url', server.http, '--token', 'sbt_wrong'])
  expect(refused).toMatchObject({ code: 3, stdout: '', stderr: expect.stringContaining('UNAUTHORIZED') })
  const gone = await cli('send --client c1 --action x --url http://127.0.0.1:4 --json')
  expect(gone).toMatchObject({ code: 4, stdout: '', stderr: expect.stringContaining('no server answers at') })
  expect(gone.stderr).not.toContain('--idempotency-key')
})

test.concurrent('help and the list of commands are data, with the exit codes', async () => {
  const { code, stdout } = await run(['--help'])
  expect(code).toBe(0)
  expect(stdout).toMatch(/Exit codes:\n +0 +done\n/)
  expect(await run([])).toMatchObject({ code: 2, stdout: '' })
})

test.concurrent('Ctrl-C ends the waiting with 130, not the command', async () => {
  await cli.json('clients create n1')
  const sending = start(['send', '--client', 'n1', '--action', 'print', '--wait'], { env: cli.env })
  await until(() => sending.output.stderr.includes('waiting'), 'it waits')
  const [, id] = /^sent (\S+)/.exec(sending.output.stderr) ?? []
  const watching = start(['watch', id as string], { env: cli.env })
  await until(() => watching.output.stdout.includes('command.created'), 'it watches')
  for (const { process, ended } of [sending, watching]) {
    process.kill('SIGINT')
    expect(await ended).toMatchObject({ code: 130, stderr: expect.stringContaining('the command goes on') })
  }
  expect(await cli.json(`commands show ${id}`)).toMatchObject({ status: 'pending' })
})

test.concurrent('a principal is created, gets a further token, and a revoked token stops working', async () => {
  const created = await cli.json('tokens create watcher --role viewer')
  expect(created).toMatchObject({
    principal: { name: 'watcher', role: 'viewer' },
    token: expect.stringMatching(/^sbt_/),
  })
  const status = async (token: string) =>
    (await fetch(`${server.http}/api/commands`, { headers: { authorization: `Bearer ${token}` } })).status
  expect(await status(created.token)).toBe(200)
  const added = await cli.json(`tokens add ${created.principal.id} --name laptop --expires 2100-01-01T00:00:00Z`)
  expect(await status(added.token)).toBe(200)
  expect((await cli.json('tokens list')).items).toContainEqual(
    expect.objectContaining({ id: added.id, principal: 'watcher', name: 'laptop' }),
  )
  expect((await cli('tokens list')).stdout).toMatch(new RegExp(`${added.id} +watcher +laptop +.*2100-01-01`))
  expect((await cli(`tokens revoke ${added.id}`)).code).toBe(0)
  expect(await status(added.token)).toBe(401)
  expect(await cli('tokens create watcher --role viewer')).toMatchObject({
    code: 3,
    stderr: expect.stringContaining('CONFLICT'),
  })
})

test.concurrent('an operator is granted, sends within its grants, and is looked up in the records', async () => {
  const { token } = await cli.json('tokens create packer --role operator')
  await cli.json('clients create g1 --zones G')
  await cli.json('clients create g2')
  const env = { ...cli.env, SIGNALBOX_TOKEN: token }
  const send = (clientId: string) => run(['send', '--client', clientId, '--action', 'print'], { env })
  expect(await send('g1')).toMatchObject({ code: 3, stderr: expect.stringContaining('ACTION_NOT_ALLOWED') })

  expect((await cli('principals grants packer')).stdout).toBe('packer has no grants\n')
  const granted = await cli('principals grant packer --scope zone:G --actions print,lock --per-day 5 --per-minute 2')
  expect(granted.stdout).toMatch(/^zone:G +print, lock +5 +2$/m)
  await cli.json('principals grant packer --scope zone:G --actions print --per-day 1 --per-minute 9')
  await cli.json('principals grant packer --scope client:g9 --actions * --per-day 1 --per-minute 9')
  expect(await cli.json('principals grants packer')).toEqual([
    { scope: { zone: 'G' }, actions: ['print'], maxCommandsPerDay: 1, commandsPerMinute: 9 },
    { scope: { clientId: 'g9' }, actions: ['*'], maxCommandsPerDay: 1, commandsPerMinute: 9 },
  ])
  expect((await send('g1')).code).toBe(0)
  expect(await send('g1')).toMatchObject({ code: 3, stderr: expect.stringContaining('DAILY_LIMIT') })
  expect((await send('g2')).code).toBe(3)
  expect(await cli.json('principals ungrant packer --scope client:g9')).toHaveLength(1)
  expect(await cli('principals grant packer --scope G --actions print --per-day 1 --per-minute 1')).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('zone:ZONE'),
  })
  expect(await cli('principals grants nobody')).toMatchObject({ code: 2 })

  expect((await cli('principals list')).stdout).toMatch(/packer +operator/)
  const { items } = await cli.json('audit --subject principal:packer --kind grants.replaced')
  expect(items).toHaveLength(4)
  expect((await cli('audit --principal admin --subject client:g2')).stdout).toMatch(/admin +127.0.0.1 +client.created/)
  await until(
    async () => (await cli('security-events --subject packer')).stdout.includes('forbidden_action'),
    'the security event',
  )
  expect((await cli('principals delete packer')).stdout).toBe('packer is deleted\n')
  expect(await send('g1')).toMatchObject({ code: 3, stderr: expect.stringContaining('UNAUTHORIZED') })
})
