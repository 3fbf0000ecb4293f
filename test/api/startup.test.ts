import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Server } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createApp } from '../../app.ts'
import { parseSettings, SettingsError } from '../../schemas/settings.ts'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { httpClient } from '../support/http.ts'
import { ADMIN_TOKEN, startServer } from '../support/server.ts'
import { silent } from '../support/silent-log.ts'
import { until } from '../support/until.ts'
import { expectProblem } from './support.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await createTestDatabase()
})
afterAll(() => database.drop())

async function takePort(port = 0): Promise<{ port: number; free(): Promise<void> }> {
  const server: Server = createServer().listen(port, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    async free() {
      server.close()
      await once(server, 'close')
    },
  }
}

describe('a taken port', () => {
  test.each(['HTTP_PORT', 'MQTT_PORT'])('%s is an error that names the setting', async (setting) => {
    const taken = await takePort()
    await expect(startServer({ [setting]: taken.port }, { database })).rejects.toThrow(
      new RegExp(`^${setting}: port ${taken.port} on 127\\.0\\.0\\.1 is taken`),
    )
    await taken.free()
  })

  test('leaves nothing behind: the same settings start once it is free', async () => {
    const http = await takePort()
    const mqtt = await takePort()
    const ws = await takePort()
    const settings = { HTTP_PORT: http.port, MQTT_PORT: mqtt.port, MQTT_WS_PORT: ws.port }
    await mqtt.free()
    await ws.free()
    await expect(startServer(settings, { database })).rejects.toThrow(/^HTTP_PORT: /)
    const connections = await until(async () => {
      const rows = await database.query<{ n: number }>(
        `select count(*)::int as n from pg_stat_activity where application_name = 'signalbox' and datname = current_database()`,
      )
      return rows[0]?.n === 0 ? rows : undefined
    }, 'no connection is left')
    expect(connections).toHaveLength(1)
    await http.free()
    const server = await startServer(settings, { database })
    expect(server.http).toBe(`http://127.0.0.1:${http.port}`)
    expect(server.mqttPort).toBe(mqtt.port)
    await server.stop()
  })
})

describe('settings', () => {
  const faults = (raw: Record<string, unknown>): string[] => {
    try {
      parseSettings(raw)
    } catch (error) {
      if (error instanceof SettingsError)
        return error.message
          .split('\n')
          .slice(1)
          .map((line) => line.trim())
      throw error
    }
    return []
  }
  const names = (raw: Record<string, unknown>): string[] =>
    faults(raw)
      .map((fault) => fault.split(':')[0] ?? '')
      .sort()

  test('every fault is named at once', () => {
    const bad = {
      HTTP_PORT: '70000',
      MQTT_PORT: 'mqtt',
      ADMIN_TOKEN: 'secret-word',
      LOG_LEVEL: 'loud',
      MQTT_TOPIC_ROOT: 'a/#',
      DATABASE_POOL: '1',
      ALLOW_INSECURE: 'perhaps',
      SWEEP_INTERVAL_SECONDS: '0',
      MAX_PENDING_PER_CLIENT: '1.5',
    }
    expect(names(bad)).toEqual(Object.keys(bad).sort())
    expect(faults(bad).join()).not.toContain('secret-word')
  })

  // Open: schemas/settings.ts, parseSettings: these two faults are looked for only when there is no other.
  test('a listener beyond loopback is named together with the other faults', () => {
    expect(names({ HTTP_HOST: '0.0.0.0', MQTT_HOST: '::', LOG_LEVEL: 'loud' })).toEqual([
      'HTTP_HOST',
      'LOG_LEVEL',
      'MQTT_HOST',
    ])
  })

  test.each(['0.0.0.0', '::', '192.168.1.5', 'example.com', '127.0.0.1.example.com', ''.padEnd(1, '*')])(
    'listening on %s needs ALLOW_INSECURE',
    (host) => {
      expect(names({ HTTP_HOST: host })).toEqual(['HTTP_HOST'])
      expect(faults({ MQTT_HOST: host })[0]).toContain('ALLOW_INSECURE=true')
      expect(parseSettings({ HTTP_HOST: host, MQTT_HOST: host, ALLOW_INSECURE: 'true' }).HTTP_HOST).toBe(host)
    },
  )

  test.each(['127.0.0.1', '127.9.9.9', '::1', 'localhost'])('listening on %s does not', (host) => {
    expect(faults({ HTTP_HOST: host, MQTT_HOST: host })).toEqual([])
  })

  test('all have working defaults, and an empty variable is an absent one', () => {
    expect(parseSettings({ HTTP_PORT: '', ADMIN_TOKEN: '' })).toEqual(parseSettings({}))
    expect(parseSettings({})).toMatchObject({ HTTP_HOST: '127.0.0.1', HTTP_PORT: 3000, MQTT_PORT: 1883 })
  })
})

describe('the first administrator', () => {
  test('without ADMIN_TOKEN gets a token at the first start only; it works, and is stored as a hash', async () => {
    const fresh = await createTestDatabase()
    const first = await startServer({ ADMIN_TOKEN: undefined }, { database: fresh })
    const token = first.newAdminToken as string
    expect(token).toMatch(/^sbt_[\w-]{43}$/)
    expect((await httpClient(first.http, token).get('/clients')).status).toBe(200)
    expectProblem(await first.api.get('/clients'), 401, 'UNAUTHORIZED')
    expect(JSON.stringify(first.logs)).not.toContain(token)
    expect(JSON.stringify(await fresh.query('select * from tokens'))).not.toContain(token)
    await first.stop()

    const second = await startServer({ ADMIN_TOKEN: undefined }, { database: fresh })
    expect(second.newAdminToken).toBeUndefined()
    expect((await httpClient(second.http, token).get('/clients')).status).toBe(200)
    await second.stop()
    await fresh.drop()
  })

  test('with ADMIN_TOKEN has that token, at each start, and it is not shown', async () => {
    const fresh = await createTestDatabase()
    for (let round = 0; round < 2; round++) {
      const server = await startServer({}, { database: fresh })
      expect(server.newAdminToken).toBeUndefined()
      expect((await server.api.get('/clients')).status).toBe(200)
      await server.stop()
    }
    expect(await fresh.query('select id from tokens')).toHaveLength(1)
    await fresh.drop()
  })
})

describe('signalbox serve', () => {
  const running = new Set<ChildProcess>()
  afterAll(() => {
    for (const child of running) child.kill('SIGKILL')
  })

  function serve(settings: Record<string, string>) {
    const child = spawn(process.execPath, ['cli/main.ts', 'serve'], {
      env: {
        PATH: process.env.PATH,
        LOG_LEVEL: 'silent',
        HTTP_PORT: '0',
        MQTT_PORT: '0',
        MQTT_WS_PORT: '0',
        ...settings,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    running.add(child)
    let out = ''
    let err = ''
    child.stdout.on('data', (chunk) => {
      out += chunk
    })
    child.stderr.on('data', (chunk) => {
      err += chunk
    })
    const exit = once(child, 'close').then(([code]) => {
      running.delete(child)
      return code as number
    })
    return { child, exit, out: () => out, err: () => err }
  }

  test('prints where it listens and, at the first start only, the administrator token; SIGTERM ends it with 0', async () => {
    const fresh = await createTestDatabase()
    const first = serve({ DATABASE_URL: fresh.url })
    await until(() => first.out().includes('Admin token'), 'the token is printed')
    const token = /Admin token, shown only now: (sbt_\S+)/.exec(first.out())?.[1]
    const base = /HTTP API +(http:\/\/\S+)\/api/.exec(first.out())?.[1] as string
    expect(new URL(base).port).not.toBe('')
    expect((await httpClient(base, token).get('/clients')).status).toBe(200)
    expect(first.out().match(/sbt_/g)).toHaveLength(1)
    first.child.kill('SIGTERM')
    expect(await first.exit).toBe(0)

    const second = serve({ DATABASE_URL: fresh.url })
    await until(() => second.out().includes('Database'), 'the second start')
    second.child.kill('SIGINT')
    expect(await second.exit).toBe(0)
    expect(second.out()).not.toContain('sbt_')
    await fresh.drop()
  })

  test('with bad settings names each of them on stderr and ends with 1', async () => {
    const { exit, err, out } = serve({ HTTP_PORT: 'x', LOG_LEVEL: 'loud', MQTT_TOPIC_ROOT: '#' })
    expect(await exit).toBe(1)
    for (const name of ['HTTP_PORT', 'LOG_LEVEL', 'MQTT_TOPIC_ROOT']) expect(err()).toContain(`${name}: `)
    expect(err()).not.toContain('at ')
    expect(out()).toBe('')
  })

  async function serveOnTakenPort(setting: string): Promise<void> {
    const taken = await takePort()
    const { exit, err } = serve({ DATABASE_URL: database.url, [setting]: String(taken.port) })
    expect(await exit).toBe(1)
    await taken.free()
    expect(err()).toMatch(new RegExp(`^signalbox: ${setting}: port ${taken.port} on 127\\.0\\.0\\.1 is taken`))
  }

  test.each(['HTTP_PORT', 'MQTT_PORT'])('with a taken %s names it on stderr and ends with 1', serveOnTakenPort)

  // Open: broker/listeners.ts: WebSocketServer re-emits its server's error, nobody listens, the process dies with a stack.
  test('with a taken MQTT_WS_PORT names it on stderr and ends with 1', () => serveOnTakenPort('MQTT_WS_PORT'))

  test('without its database ends with 1 and shows no password', async () => {
    const nowhere = await takePort()
    await nowhere.free()
    const { exit, err } = serve({ DATABASE_URL: `postgres://me:pass-word@127.0.0.1:${nowhere.port}/none` })
    expect(await exit).toBe(1)
    expect(err()).toContain('signalbox: ')
    expect(err()).not.toContain('pass-word')
  })
})

test('the address that is shown has no password', async () => {
  const url = new URL(database.url)
  url.password = 'pass-word'
  const app = createApp(
    parseSettings({ DATABASE_URL: url.href, HTTP_PORT: 0, MQTT_PORT: 0, MQTT_WS_PORT: 0, ADMIN_TOKEN }),
    { log: silent },
  )
  const addresses = await app.start()
  expect(JSON.stringify(addresses)).not.toContain('pass-word')
  await app.stop()
})
