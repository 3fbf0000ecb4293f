import { once } from 'node:events'
import { createConnection } from 'node:net'
import { afterEach, describe, expect, test } from 'vitest'
import { CONNACK, connect, openWire, PINGREQ, PINGRESP, type Wire } from '../mqtt-clauses/support/wire.ts'
import { ADMIN_TOKEN, startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'

let server: TestServer
const wires: Wire[] = []
afterEach(async () => {
  for (const wire of wires.splice(0)) wire.drop()
  await server.stop()
})

async function open(host?: string): Promise<Wire> {
  const wire = await openWire(server.mqttPort, host)
  wires.push(wire)
  return wire
}

const login = (clientId: string): Buffer => connect({ clientId, flags: 0xc2, rest: ['admin', ADMIN_TOKEN] })

async function enter(clientId: string): Promise<Wire> {
  const wire = await open()
  wire.send(login(clientId))
  await wire.expect(CONNACK, `CONNACK of ${clientId}`)
  return wire
}

const turnedAway = () => server.logs.filter(({ msg }) => msg === 'connection turned away').map(({ reason }) => reason)
const names = (count: number): string[] => Array.from({ length: count }, (_, index) => `t${index}`)

test('a connection more than MQTT_MAX_CONNECTIONS is closed, until another one has gone', async () => {
  server = await startServer({ MQTT_MAX_CONNECTIONS: 5 })
  const inside = await Promise.all(names(5).map(enter))
  const refused = await open()
  await refused.end()
  expect(turnedAway()).toEqual(['the server has as many connections as it may'])
  inside[0]?.drop()
  await until(async () => {
    const wire = await open()
    wire.send(login('next'))
    return (await until(() => wire.received().length > 0 || wire.closed(), 'an answer')) && !wire.closed()
  }, 'room for one')
  for (const wire of inside.slice(1)) {
    wire.send(PINGREQ)
    await wire.expect(PINGRESP)
  }
})

describe('of one address, before their login is through', () => {
  test('sockets beyond the limit wait, and get in when those before them are through or out of time', async () => {
    server = await startServer({ MQTT_MAX_UNAUTHENTICATED_PER_ADDRESS: 3, MQTT_CONNECT_TIMEOUT_SECONDS: 1 })
    const silent = [await open(), await open(), await open()]
    const waiting = await open()
    waiting.send(login('patient'))
    const elsewhere = createConnection({ port: server.mqttPort, host: '127.0.0.1', localAddress: '127.0.0.2' })
    await once(elsewhere, 'connect')
    elsewhere.write(login('elsewhere'))
    await once(elsewhere, 'data')
    elsewhere.destroy()
    expect(waiting.received().length).toBe(0)
    await waiting.expect(CONNACK)
    await Promise.all(silent.map((wire) => wire.end()))
    expect(turnedAway()).toEqual(Array(3).fill('no CONNECT in time'))
  })

  test('a fleet far larger than the limit comes back at once: nobody is turned away', async () => {
    server = await startServer({ MQTT_MAX_UNAUTHENTICATED_PER_ADDRESS: 3 })
    const fleet = await Promise.all(names(300).map(enter))
    expect(fleet.every((wire) => !wire.closed())).toBe(true)
    expect(turnedAway()).toEqual([])
    // All of them are connected, and none counts any more.
    await (await enter('one-more')).expect(Buffer.alloc(0))
  })

  test('half-open sockets that wait their whole life keep nobody else out for longer', async () => {
    server = await startServer({ MQTT_MAX_UNAUTHENTICATED_PER_ADDRESS: 2, MQTT_CONNECT_TIMEOUT_SECONDS: 0.3 })
    await Promise.all(names(10).map(() => open()))
    const started = performance.now()
    await enter('behind-them')
    // Five pairs before it, each until its time is up.
    expect(performance.now() - started).toBeLessThan(5 * 600)
  })

  test('more than may wait are closed, and who waits too long is', async () => {
    server = await startServer({
      MQTT_MAX_UNAUTHENTICATED_PER_ADDRESS: 1,
      MQTT_MAX_WAITING_PER_ADDRESS: 2,
      MQTT_CONNECT_TIMEOUT_SECONDS: 3,
      MQTT_ADMISSION_SECONDS: 0.5,
    })
    await open()
    const [first, second, third] = [await open(), await open(), await open()]
    await third?.end()
    expect(turnedAway()).toEqual(['too many of its address wait already'])
    await Promise.all([first?.end(), second?.end()])
    expect(turnedAway().slice(1)).toEqual(Array(2).fill('its turn did not come in time'))
  })

  test('a socket that goes away while it waits leaves its place to the next', async () => {
    server = await startServer({ MQTT_MAX_UNAUTHENTICATED_PER_ADDRESS: 1, MQTT_CONNECT_TIMEOUT_SECONDS: 1 })
    await open()
    const impatient = await Promise.all(names(50).map(() => open()))
    for (const wire of impatient) wire.drop()
    await enter('patient')
  })
})
