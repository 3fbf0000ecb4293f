import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { commandsOf, logged, own } from '../broker/support/scene.ts'
import { type Device, ROOT, startDevice } from '../support/device.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { hasTool } from '../support/tools.ts'
import { until } from '../support/until.ts'
import {
  createFolder,
  type Folder,
  lookOn,
  type Mosquitto,
  startMosquitto,
  untilBridge,
} from './support/technicians.ts'

// Each test starts processes; on a busy machine that takes its time.
vi.setConfig({ testTimeout: 90_000 })

const FILE = 'mosquitto.d/signalbox.conf'
const missing = [hasTool('mosquitto', 'mosquitto'), hasTool('mosquitto_sub', 'mosquitto-clients')].includes(false)

describe.skipIf(missing)("the technicians' broker", () => {
  let server: TestServer
  let folder: Folder
  let mosquitto: Mosquitto
  let device: Device
  const tools: ChildProcess[] = []

  beforeAll(async () => {
    server = await startServer()
    folder = await createFolder()
    expect(await folder.writeBridge(server)).toMatchObject({ code: 0 })
    device = await startDevice(server, 'pda-7', { zones: ['A'] })
    await device.subscribe([`${ROOT}/zones/A/commands`, `${ROOT}/broadcast/commands`, own('pda-7', 'replies')])
    mosquitto = await startMosquitto(folder)
  })
  afterAll(async () => {
    for (const tool of tools) tool.kill()
    await mosquitto?.stop()
    await server?.stop()
    folder?.remove()
  })

  test('the connection is written for its reader alone, with a token of a technician, and git does not keep it', async () => {
    const text = readFileSync(join(folder.path, FILE), 'utf8')
    expect(statSync(join(folder.path, FILE)).mode & 0o777).toBe(0o600)
    expect(execFileSync('git', ['check-ignore', FILE], { encoding: 'utf8' }).trim()).toBe(FILE)
    expect(execFileSync('git', ['ls-files', 'mosquitto.d'], { encoding: 'utf8' }).trim()).toBe('mosquitto.d/.gitignore')
    const { body } = await server.api.get('/principals')
    expect(body.items.find((one: { name: string }) => one.name === 'mosquitto')).toMatchObject({ role: 'technician' })
    expect(text).toMatch(/^remote_username mosquitto\nremote_password sbt_\S{43}\nremote_clientid \S+~\S+$/m)
    expect(text).toMatch(/^try_private true$/m)
  })

  test('a second one is refused before there is a token, and so is what is no bridge', async () => {
    const tokens = async (): Promise<number> => (await server.api.get('/tokens?limit=200')).body.items.length
    const before = await tokens()
    const refused = async (words: string, ...options: string[]): Promise<void> =>
      expect(await folder.writeBridge(server, ...options)).toMatchObject({
        code: 2,
        stdout: '',
        stderr: expect.stringContaining(words),
      })
    await refused('is there already')
    await refused('principal admin is admin', '--principal', 'admin', '--name', 'other')
    await refused('--name', '--name', '../other')
    await refused('--mqtt http', '--name', 'other', '--mqtt', 'http://127.0.0.1')
    await refused('--root', '--name', 'other', '--root', 'a b')
    await refused('only with mqtts', '--name', 'other', '--ca', 'ca.pem')
    await refused('cannot be written', '--directory', 'nowhere')
    const gone = { http: 'http://127.0.0.1:1', mqttPort: 1 }
    expect(await folder.writeBridge(gone, '--name', 'other')).toMatchObject({ code: 4, stdout: '' })
    expect(() => statSync(join(folder.path, 'mosquitto.d/other.conf'))).toThrow('ENOENT')
    expect(await tokens()).toBe(before)
  })

  test.each([5, 4] as const)('a tool that speaks MQTT %i sees everything, as it is', async (version) => {
    const tool = await lookOn(folder, version)
    await untilBridge(tool, '1')
    const status = await until(() => tool.last(own('pda-7', 'status')), 'status')
    expect(status.retain).toBe(true)
    expect(JSON.parse(status.payload)).toMatchObject({ state: 'online' })
    const config = await until(() => tool.last(own('pda-7', 'config')), 'config')
    expect(JSON.parse(config.payload)).toMatchObject({ zones: ['A'] })

    const ids = []
    for (const target of [{ clientId: 'pda-7' }, { zone: 'A' }, { broadcast: true }]) {
      const { body } = await server.api.post('/commands', { ...target, action: 'pick', payload: { für: version } })
      ids.push(body.id)
      const { messageId } = await until(
        () => device.received().find(({ payload }) => payload.id === body.id && payload.type === 'command'),
        'the command at the device',
      )
      device.ack(messageId as number)
      await device.report(body.id, { status: 'running' })
      await device.report(body.id, { status: 'completed', result: version })
    }
    await device.publish(own('pda-7', 'events/scan'), { id: `scan-${version}`, code: '4006381' })
    await device.publish(own('pda-7', 'events/scan'), { code: 'without an id' })

    const of = (topic: string): Record<string, unknown>[] =>
      tool.seen.filter((one) => one.topic === topic).map(({ payload }) => JSON.parse(payload))
    await until(() => of(own('pda-7', 'replies')).some(({ type }) => type === 'error'), 'replies')
    const [direct, zone, broadcast] = ids
    expect(of(commandsOf('pda-7')).map(({ id }) => id)).toContain(direct)
    expect(of(`${ROOT}/zones/A/commands`).map(({ id }) => id)).toContain(zone)
    expect(of(`${ROOT}/broadcast/commands`)).toContainEqual(
      expect.objectContaining({ id: broadcast, payload: { für: version } }),
    )
    for (const id of ids) {
      expect(of(own('pda-7', `commands/${id}/status`)).map((report) => report.status)).toEqual(['running', 'completed'])
    }
    expect(of(own('pda-7', 'events/scan'))).toContainEqual({ id: `scan-${version}`, code: '4006381' })
    await tool.client.endAsync()
  })

  test.each(['5', '311'])('mosquitto_sub -V %s sees a command', async (version) => {
    const lines: string[] = []
    const tool = spawn('mosquitto_sub', ['-V', version, '-p', `${folder.port}`, '-v', '-t', `${ROOT}/#`])
    tools.push(tool)
    tool.stdout.on('data', (chunk: Buffer) => lines.push(...chunk.toString().trim().split('\n')))
    await until(() => lines.some((line) => line.startsWith(own('pda-7', 'status'))), 'the retained status')
    const { body } = await server.api.post('/commands', { clientId: 'pda-7', action: 'pick' })
    await until(() => lines.some((line) => line.startsWith(commandsOf('pda-7')) && line.includes(body.id)), 'command')
  })

  test.each([5, 4] as const)(
    'over MQTT %i nothing can be published: neither here nor at the server',
    async (version) => {
      const [tool, other] = [await lookOn(folder, version), await lookOn(folder, 5)]
      await untilBridge(tool, '1')
      await until(() => other.last(own('pda-7', 'config')), 'what is retained')
      const connections = mosquitto.log.split('Connecting bridge').length
      const forged = `forged-${version}`
      const command = JSON.stringify({ type: 'command', id: forged, attempt: 1, action: 'pick', payload: {} })
      const attempts: [topic: string, payload: string, retain: boolean][] = [
        [commandsOf('pda-7'), command, false],
        [`${ROOT}/broadcast/commands`, command, false],
        [own('pda-7', 'status'), JSON.stringify({ state: forged }), true],
        [own('pda-7', 'config'), '', true],
        [own('pda-7', `commands/${forged}/status`), JSON.stringify({ status: 'completed' }), false],
        ['elsewhere', forged, true],
      ]
      for (const [topic, payload, retain] of attempts) {
        await tool.client.publishAsync(topic, payload, { retain, qos: 0 })
        const acknowledged = tool.client.publishAsync(topic, payload, { retain, qos: 1 })
        // MQTT 3.1.1 has no way to say no but to close the connection.
        if (version === 5) await expect(acknowledged).rejects.toThrow(/not authorized/i)
        else await acknowledged
      }
      const { body } = await server.api.post('/commands', { broadcast: true, action: 'pick' })
      await until(() => JSON.stringify(device.received()).includes(body.id), 'a command of the server')
      await until(() => JSON.stringify(other.seen).includes(body.id), 'the same at another tool')
      expect(JSON.stringify(device.packets.map(String)) + JSON.stringify(device.received())).not.toContain(forged)
      expect(JSON.stringify(other.seen)).not.toContain(forged)
      expect(await server.sql('select * from security_events')).toEqual([])
      expect(logged(server, 'connection closed')).toEqual([])
      expect(mosquitto.log.split('Connecting bridge').length).toBe(connections)
      const late = await lookOn(folder, 5)
      const config = await until(() => late.last(own('pda-7', 'config')), 'config')
      expect(JSON.parse(config.payload)).toMatchObject({ zones: ['A'] })
      for (const { client } of [tool, other, late]) await client.endAsync()
    },
  )

  test('a client that is deleted is gone here too', async () => {
    const tool = await lookOn(folder, 5)
    await server.api.post('/clients', { id: 'short-lived' })
    await until(() => tool.last(own('short-lived', 'config'))?.payload, 'its config')
    await server.api.send('DELETE', '/clients/short-lived')
    await until(() => tool.last(own('short-lived', 'config'))?.payload === '', 'its end')
    const late = await lookOn(folder, 5)
    await until(() => late.last(own('pda-7', 'config')), 'what is retained')
    expect(late.seen.filter(({ topic }) => topic.includes('short-lived'))).toEqual([])
    for (const { client } of [tool, late]) await client.endAsync()
  })

  test('with the token revoked the bridge is cut, and comes back with another token', async () => {
    const tool = await lookOn(folder, 5)
    await untilBridge(tool, '1')
    const { body } = await server.api.get('/tokens?limit=200')
    const [token] = body.items.filter((one: { principal: string }) => one.principal === 'mosquitto')
    expect((await server.api.send('DELETE', `/tokens/${token.id}`)).status).toBe(204)
    await untilBridge(tool, '0')
    await until(() => mosquitto.log.includes('Connection Refused'), 'a refusal', 20_000)
    const { body: created } = await server.api.post('/commands', { clientId: 'pda-7', action: 'pick', priority: 10 })
    await until(() => JSON.stringify(device.received()).includes(created.id), 'the command at the device')
    expect(JSON.stringify(tool.seen)).not.toContain(created.id)
    await tool.client.endAsync()

    await mosquitto.stop()
    expect(await folder.writeBridge(server, '--name', 'again')).toMatchObject({ code: 0 })
    rmSync(join(folder.path, FILE))
    mosquitto = await startMosquitto(folder)
    const after = await lookOn(folder, 5)
    await untilBridge(after, '1')
    await until(() => after.last(own('pda-7', 'status')), 'status')
    await after.client.endAsync()
  })
})
