import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Assembly } from '../../broker/assembly.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { startOpenBroker } from './support/open-broker.ts'
import { FIRST_PACKETS, FOR_ANYBODY, IN_A_SESSION, type Vector } from './support/vectors.ts'
import { CONNACK, connect, openWire, PINGREQ, PINGRESP } from './support/wire.ts'

interface Target {
  port: number
  /** A CONNECT that is accepted. */
  login: Buffer
}

async function judge({ port, login }: Target, vector: Vector, inSession: boolean): Promise<void> {
  const wire = await openWire(port)
  if (inSession) {
    wire.send(login)
    await wire.expect(CONNACK, 'CONNACK')
  }
  const answer = vector.answer ?? Buffer.alloc(0)
  if (vector.closed) {
    wire.send(vector.send)
    expect((await wire.end()).toString('hex')).toBe(answer.toString('hex'))
    return
  }
  wire.send(vector.send)
  await wire.expect(answer)
  wire.send(PINGREQ)
  await wire.expect(PINGRESP, 'PINGRESP')
  expect(wire.closed()).toBe(false)
  wire.drop()
}

const rows = (vectors: Vector[]) =>
  vectors.map((vector) => [`[${vector.clause}] ${vector.name}`, vector] as [string, Vector])

describe('a broker that anybody may use', () => {
  let broker: Assembly
  const target: Target = { port: 0, login: connect({ clientId: 'vectors' }) }

  beforeAll(async () => {
    const started = await startOpenBroker()
    broker = started.broker
    target.port = started.port
  })
  afterAll(() => broker.stop())

  test.each(rows(FIRST_PACKETS))('%s', (_name, vector) => judge(target, vector, false))
  test.each(rows(IN_A_SESSION))('%s', (_name, vector) => judge(target, vector, true))
  test.each(rows(FOR_ANYBODY))('%s', (_name, vector) => judge(target, vector, true))
})

describe('the control plane', () => {
  let server: TestServer
  const target: Target = { port: 0, login: Buffer.alloc(0) }

  beforeAll(async () => {
    server = await startServer()
    const { body } = await server.api.post('/clients', { id: 'vectors' })
    target.port = server.mqttPort
    target.login = connect({ clientId: 'vectors', flags: 0xc2, rest: ['vectors', body.clientKey] })
  })
  afterAll(() => server.stop())

  test.each(rows(FIRST_PACKETS))('%s', (_name, vector) => judge(target, vector, false))
  test.each(rows(IN_A_SESSION))('%s', (_name, vector) => judge(target, vector, true))
})
