import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import { connect as openSocket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as openTls } from 'node:tls'
import { connectAsync, type MqttClient } from 'mqtt'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { issueCertificate, tlsSettings } from '../support/certificate.ts'
import { ROOT } from '../support/device.ts'
import { ADMIN_TOKEN, startServer, type TestServer } from '../support/server.ts'
import { hasTool } from '../support/tools.ts'
import { until } from '../support/until.ts'
import { register } from './support/scene.ts'

const folder = mkdtempSync(join(tmpdir(), 'signalbox-tls-'))
const file = (name: string): string => join(folder, name)

describe.skipIf(!hasTool('openssl', 'openssl'))('with a certificate', () => {
  let server: TestServer
  const port = (url: string | undefined): number => Number(new URL(url as string).port)

  beforeAll(async () => {
    issueCertificate(folder, 'first')
    server = await startServer({
      ...tlsSettings(folder),
      TLS_RELOAD_SECONDS: 0.05,
      MQTT_CONNECT_TIMEOUT_SECONDS: 2,
      HTTP_HOST: '0.0.0.0',
      MQTT_HOST: '0.0.0.0',
    })
  })
  afterAll(async () => {
    await server.stop()
    rmSync(folder, { recursive: true })
  })

  const get = (host: string, path: string): Promise<number | undefined> =>
    new Promise((resolve, reject) => {
      const options = {
        host,
        port: port(server.tls?.https),
        path,
        ca: readFileSync(file('server.crt')),
        headers: { authorization: `Bearer ${ADMIN_TOKEN}` },
        agent: false,
      }
      request(options, (answer) => {
        answer.resume()
        resolve(answer.statusCode)
      })
        .on('error', reject)
        .end()
    })

  const client = (url: string, clientId: string, password: string): Promise<MqttClient> =>
    connectAsync(url.replace('0.0.0.0', '127.0.0.1'), {
      clientId,
      username: clientId,
      password,
      ca: readFileSync(file('server.crt')),
      reconnectPeriod: 0,
    })

  const subjectNow = (): Promise<string> =>
    new Promise((resolve, reject) => {
      const socket = openTls({ port: port(server.tls?.mqtts), host: '127.0.0.1', rejectUnauthorized: false }, () => {
        resolve(String(socket.getPeerCertificate().subject.CN))
        socket.destroy()
      })
      socket.on('error', reject)
    })

  test('the API answers over HTTPS, and devices work over TLS and over WebSocket on TLS', async () => {
    expect(await get('127.0.0.1', '/api/clients')).toBe(200)
    for (const [id, url] of [
      ['over-tls', server.tls?.mqtts],
      ['over-wss', server.tls?.mqttWebSocket],
    ] as const) {
      const device = await client(url as string, id, await register(server, id))
      const got: string[] = []
      device.on('message', (_topic, payload) => void got.push(JSON.parse(payload.toString()).id))
      await device.subscribeAsync(`${ROOT}/clients/${id}/commands`, { qos: 1 })
      const { body } = await server.api.post('/commands', { clientId: id, action: 'do' })
      await until(() => got.includes(body.id), 'the command')
      await device.endAsync()
    }
  })

  test('the plain listeners are on loopback only, whatever the hosts say', async () => {
    expect(await get('127.0.0.2', '/api/clients')).toBe(200)
    for (const url of [server.http, server.mqtt, server.mqttWebSocket]) {
      expect(new URL(url).hostname).toBe('127.0.0.1')
      const refused = await new Promise((resolve) => {
        const socket = openSocket({ host: '127.0.0.2', port: port(url) }, () => resolve('connected'))
        socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code))
      })
      expect(refused).toBe('ECONNREFUSED')
    }
  })

  test('a renewed certificate is used by new connections, and the open ones go on; an unusable one changes nothing', async () => {
    const device = await client(server.tls?.mqtts as string, 'stays', await register(server, 'stays'))
    let closed = false
    device.on('close', () => {
      closed = true
    })
    expect(await subjectNow()).toBe('first')
    issueCertificate(folder, 'second')
    await until(async () => (await subjectNow()) === 'second', 'the second certificate')
    expect(await get('127.0.0.1', '/health')).toBe(200)

    writeFileSync(file('server.crt'), 'torn while it was written')
    await until(
      () => server.logs.some(({ msg }) => msg === 'the new certificate is not usable; the old one stays'),
      'the complaint',
    )
    expect(await subjectNow()).toBe('second')
    issueCertificate(folder, 'third')
    await until(async () => (await subjectNow()) === 'third', 'the third certificate')
    await device.publishAsync(`${ROOT}/clients/stays/events/scan`, JSON.stringify({ id: 's1' }), { qos: 1 })
    expect(closed).toBe(false)
    await device.endAsync()
  })

  test('the gate is the same: large messages pass, a wrong key is answered, who says nothing is gone in time', async () => {
    for (const [id, url] of [
      ['large-tls', server.tls?.mqtts],
      ['large-wss', server.tls?.mqttWebSocket],
    ] as const) {
      const device = await client(url as string, id, await register(server, id))
      await device.publishAsync(`${ROOT}/clients/${id}/events/x`, JSON.stringify({ id, x: 'y'.repeat(250_000) }), {
        qos: 1,
      })
      await device.endAsync()
      await expect(client(url as string, id, `sbk_${'x'.repeat(43)}`)).rejects.toMatchObject({ code: 4 })
    }
    const silent = [server.tls?.mqtts, server.tls?.mqttWebSocket].flatMap((url) => [
      openSocket({ host: '127.0.0.1', port: port(url) }),
      openTls({ host: '127.0.0.1', port: port(url), rejectUnauthorized: false }),
    ])
    const ends = silent.map(
      (socket) => new Promise((resolve) => socket.on('error', () => undefined).once('close', resolve)),
    )
    await Promise.all(ends)
    const turnedAway = server.logs.filter(({ msg }) => msg === 'connection turned away')
    // The time of a handshake that never comes may be up first.
    expect(turnedAway.length).toBeGreaterThanOrEqual(2)
    expect(new Set(turnedAway.map(({ reason }) => reason))).toEqual(new Set(['no CONNECT in time']))
  })

  test('plain bytes on a TLS port harm nobody', async () => {
    const socket = openSocket({ host: '127.0.0.1', port: port(server.tls?.mqtts) })
    const ended = new Promise((resolve) => socket.once('close', resolve))
    socket.on('error', () => undefined)
    socket.write('GET / HTTP/1.1\r\n\r\n')
    await ended
    expect(await get('127.0.0.1', '/health')).toBe(200)
  })
})
