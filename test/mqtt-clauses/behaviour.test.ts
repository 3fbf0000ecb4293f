import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Assembly } from '../../broker/assembly.ts'
import { until } from '../support/until.ts'
import { join } from './support/client.ts'
import { startOpenBroker } from './support/open-broker.ts'
import { CONNACK, connect, openWire, packet, u16 } from './support/wire.ts'

let broker: Assembly
let port: number

beforeAll(async () => {
  const started = await startOpenBroker()
  broker = started.broker
  port = started.port
})
afterAll(() => broker.stop())

const brief = (messages: { topic: string; payload: string; qos: number }[]) =>
  messages.map(({ topic, payload, qos }) => [topic, payload, qos])

describe('sessions', () => {
  test('[MQTT-3.1.2-4] [MQTT-3.2.2-2] continue, and say so; [MQTT-3.1.2-6] [MQTT-3.2.2-1] a clean one ends what was', async () => {
    const first = await join(port, { clientId: 's1', clean: false })
    expect(first.sessionPresent).toBe(false)
    expect(await first.subscribe(['s1/+', 1])).toEqual([1])
    await first.leave()
    const second = await join(port, { clientId: 's1', clean: false })
    expect(second.sessionPresent).toBe(true)
    await second.publish('s1/a', 'still subscribed', { qos: 1 })
    await until(() => second.messages.length === 1, 'the message')
    await second.leave()
    const clean = await join(port, { clientId: 's1' })
    expect(clean.sessionPresent).toBe(false)
    await clean.publish('s1/a', 'nobody')
    await clean.settle()
    expect(clean.messages).toEqual([])
    await clean.leave()
    expect((await join(port, { clientId: 's1', clean: false })).sessionPresent).toBe(false)
  })

  test('[MQTT-3.2.2-2] a session without subscriptions is one as well', async () => {
    await (await join(port, { clientId: 's2', clean: false })).leave()
    const again = await join(port, { clientId: 's2', clean: false })
    expect(again.sessionPresent).toBe(true)
    await again.settle()
    await again.leave()
  })

  test('[MQTT-3.1.2-5] messages for a session that is away wait, at the lower of both QoS, in order; QoS 0 does not', async () => {
    const away = await join(port, { clientId: 's3', clean: false })
    await away.subscribe(['s3/two/#', 2], ['s3/one/+', 1], ['s3/zero', 0])
    await away.leave()
    const other = await join(port)
    for (const [topic, qos] of [
      ['s3/two/a', 2],
      ['s3/one/b', 2],
      ['s3/two/c', 1],
      ['s3/two/d', 0],
      ['s3/zero', 2],
      ['s3/one/e', 1],
    ] as const)
      await other.publish(topic, topic, { qos, retain: topic === 's3/one/e' })
    const back = await join(port, { clientId: 's3', clean: false })
    await until(() => back.messages.length >= 4, 'four messages')
    await back.settle()
    expect(back.messages.map(({ topic, qos, dup, retain }) => [topic, qos, dup, retain])).toEqual([
      ['s3/two/a', 2, false, false],
      ['s3/one/b', 1, false, false],
      ['s3/two/c', 1, false, false],
      ['s3/one/e', 1, false, false],
    ])
    await back.leave()
    const third = await join(port, { clientId: 's3', clean: false })
    await third.settle()
    expect(third.messages).toEqual([])
    await Promise.all([third.leave(), other.leave()])
  })

  test('[MQTT-4.7.1-3] a level may be empty, for those who are away too', async () => {
    const away = await join(port, { clientId: 's4', clean: false })
    await away.subscribe(['+/s4', 1])
    await away.publish('/s4', 'live', { qos: 1 })
    await until(() => away.messages.length === 1, 'the live message')
    await away.leave()
    const other = await join(port)
    await other.publish('/s4', 'kept', { qos: 1 })
    const back = await join(port, { clientId: 's4', clean: false })
    await until(() => back.messages.length === 1, 'the kept message')
    await Promise.all([back.leave(), other.leave()])
  })

  test('[MQTT-3.1.4-2] a second client of the same id ends the first, whose will is published', async () => {
    const watcher = await join(port)
    await watcher.subscribe(['s5/will', 1])
    const first = await join(port, { clientId: 's5', will: { topic: 's5/will', payload: 'gone', qos: 1 } })
    const second = await join(port, { clientId: 's5' })
    await first.whenClosed()
    await until(() => watcher.messages.length === 1, 'the will')
    await second.settle()
    await Promise.all([second.leave(), watcher.leave()])
  })

  test('[MQTT-3.1.3-6] [MQTT-3.1.3-7] clients without an id get one each', async () => {
    const [one, two] = [await join(port, { clientId: '' }), await join(port, { clientId: '' })]
    await one.publish('s6', '', { qos: 1 })
    await two.publish('s6', '', { qos: 1 })
    await Promise.all([one.leave(), two.leave()])
  })

  test('3.1.4 what is sent before CONNACK is taken in, however much it is', async () => {
    const wire = await openWire(port)
    const publishes = Array.from({ length: 500 }, (_, index) => packet(0x32, 's7', u16(index + 1), Buffer.from('x')))
    wire.send(connect({ clientId: 's7' }), ...publishes)
    await wire.expect(CONNACK)
    for (let index = 1; index <= 500; index++) await wire.expect(packet(0x40, u16(index)))
    wire.drop()
  })

  test('[MQTT-3.1.2-24] a client that is silent for one and a half times its keepalive is gone', async () => {
    const watcher = await join(port)
    await watcher.subscribe(['s8/will', 0])
    const started = performance.now()
    const silent = await join(port, { keepalive: 1, will: { topic: 's8/will', payload: 'silent' } })
    const speaking = await join(port, { keepalive: 1 })
    const pings = setInterval(() => speaking.send({ cmd: 'pingreq' }), 400)
    await silent.whenClosed()
    expect(performance.now() - started).toBeGreaterThan(1400)
    await until(() => watcher.messages.length === 1, 'the will')
    expect(speaking.closed()).toBe(false)
    clearInterval(pings)
    await Promise.all([speaking.leave(), watcher.leave()])
  })
})

describe('a will', () => {
  test('[MQTT-3.1.2-8] is published when the connection is lost or breaks the protocol, [MQTT-3.14.4-3] not after DISCONNECT', async () => {
    const watcher = await join(port)
    await watcher.subscribe(['w/#', 2])
    const will = (payload: string) => ({ topic: 'w/1', payload, qos: 2 as const })
    await (await join(port, { will: will('left') })).leave()
    await (await join(port, { will: will('dropped') })).drop()
    await until(() => watcher.messages.length === 1, 'the first will')
    const offender = await join(port, { will: will('offended') })
    offender.write(Buffer.from([0x00, 0x00]))
    await offender.whenClosed()
    await until(() => watcher.messages.length === 2, 'the second will')
    const leaving = await join(port, { will: will('left with garbage behind') })
    leaving.write(Buffer.from([0xe0, 0x00, 0x00, 0x00]))
    await leaving.whenClosed()
    await watcher.settle()
    expect(brief(watcher.messages)).toEqual([
      ['w/1', 'dropped', 2],
      ['w/1', 'offended', 2],
    ])
    await watcher.leave()
  })

  test('[MQTT-3.1.2-16] [MQTT-3.1.2-17] is retained only if it says so', async () => {
    await (await join(port, { will: { topic: 'w/kept', payload: 'kept', retain: true } })).drop()
    await (await join(port, { will: { topic: 'w/passing', payload: 'passing' } })).drop()
    const later = await join(port)
    await until(async () => {
      await later.subscribe(['w/kept', 0], ['w/passing', 0])
      return later.messages.length > 0
    }, 'the retained will')
    await later.settle()
    expect(new Set(later.messages.map(({ topic }) => topic))).toEqual(new Set(['w/kept']))
    await later.leave()
  })
})

describe('retained messages', () => {
  test('[MQTT-3.3.1-5] [MQTT-3.3.1-6] the last of each topic comes with a new subscription, [MQTT-3.3.1-8] marked; [MQTT-3.3.1-9] live ones are not', async () => {
    const client = await join(port)
    await client.publish('r/0', 'zero', { retain: true })
    await client.publish('r/1', 'replaced', { qos: 1, retain: true })
    await client.publish('r/1', 'one', { qos: 1, retain: true })
    await client.publish('r/2', 'two', { qos: 2, retain: true })
    await client.subscribe(['r/+', 2])
    await until(() => client.messages.length === 3, 'three retained')
    expect(brief(client.messages).sort()).toEqual([
      ['r/0', 'zero', 0],
      ['r/1', 'one', 1],
      ['r/2', 'two', 2],
    ])
    expect(client.messages.every(({ retain }) => retain)).toBe(true)
    client.messages.length = 0
    await client.publish('r/1', 'live', { qos: 1, retain: true })
    await until(() => client.messages.length === 1, 'the live one')
    expect(client.messages[0]?.retain).toBe(false)
    // [MQTT-3.3.1-10] [MQTT-3.3.1-11]
    for (const topic of ['r/0', 'r/1', 'r/2']) await client.publish(topic, '', { qos: 1, retain: true })
    await until(() => client.messages.length === 4, 'the removals')
    const later = await join(port)
    await later.subscribe(['r/#', 2])
    await later.settle()
    expect(later.messages).toEqual([])
    await Promise.all([client.leave(), later.leave()])
  })

  test('[MQTT-3.3.1-12] what is not retained changes nothing that is; QoS is the lower of both', async () => {
    const client = await join(port)
    await client.publish('rr/a', 'kept', { qos: 2, retain: true })
    await client.publish('rr/a', 'passing', { qos: 1 })
    await client.subscribe(['rr/#', 1])
    await until(() => client.messages.length === 1, 'the retained one')
    expect(brief(client.messages)).toEqual([['rr/a', 'kept', 1]])
    await client.publish('rr/a', '', { retain: true })
    await client.leave()
  })
})

describe('subscriptions', () => {
  const matching: [filter: string, topic: string, matches: boolean][] = [
    ['sport/tennis/player1/#', 'sport/tennis/player1', true],
    ['sport/tennis/player1/#', 'sport/tennis/player1/score/wimbledon', true],
    ['sport/#', 'sport', true],
    ['sport/#', 'sports', false],
    ['sport/tennis/+', 'sport/tennis/player1', true],
    ['sport/tennis/+', 'sport/tennis/player1/ranking', false],
    ['sport/+', 'sport', false],
    ['sport/+', 'sport/', true],
    ['+/+', '/finance', true],
    ['/+', '/finance', true],
    ['+', '/finance', false],
    ['+/+/x', 'a//x', true],
    ['a/b', 'A/b', false],
    ['a/b', 'a/b/', false],
    ['#', 'anything/at/all', true],
    ['#', '$other/topic', false],
    ['+/monitor', '$other/monitor', false],
    ['$other/#', '$other/monitor/x', true],
    ['$other/monitor/+', '$other/monitor/Clients', true],
    ['constructor/+', 'constructor/__proto__', true],
    ['__proto__', '__proto__', true],
  ]
  test.each(matching)('[MQTT-4.7.1-1] [MQTT-4.7.2-1] [MQTT-4.7.3-4] %s and %s: %s', async (filter, topic, matches) => {
    const client = await join(port)
    await client.subscribe([filter, 1])
    await client.publish(topic, 'here', { qos: 1 })
    await client.settle()
    const seen = client.messages.filter((message) => message.topic === topic)
    expect(seen.length).toBe(matches ? 1 : 0)
    await client.leave()
  })

  test.each([
    ['the higher first', [2, 1]],
    ['the lower first', [1, 2]],
    ['one at QoS 0 first', [0, 2]],
    ['one at QoS 0 last', [2, 0]],
  ] as [string, [0 | 1 | 2, 0 | 1 | 2]][])(
    '[MQTT-3.3.5-1] overlapping, %s: one message, at the highest QoS',
    async (_name, [wide, exact]) => {
      const client = await join(port)
      await client.subscribe(['o/#', wide], ['o/a', exact])
      await client.publish('o/a', 'x', { qos: 2 })
      await client.settle()
      expect(brief(client.messages)).toEqual([['o/a', 'x', 2]])
      await client.leave()
    },
  )

  test.each([0, 1, 2] as const)(
    '[MQTT-3.8.4-6] [MQTT-4.3.1-1] a subscription at QoS %i gets nothing higher',
    async (granted) => {
      const client = await join(port)
      await client.subscribe(['q/+', granted])
      for (const qos of [0, 1, 2] as const) await client.publish(`q/${qos}`, 'x', { qos })
      await until(() => client.messages.length === 3, 'three messages')
      expect(client.messages.map(({ qos }) => qos)).toEqual([0, 1, 2].map((qos) => Math.min(qos, granted)))
      await client.leave()
    },
  )

  test('[MQTT-3.8.4-3] the same filter again replaces the subscription, and what is retained comes again', async () => {
    const client = await join(port)
    await client.publish('again', 'kept', { qos: 1, retain: true })
    expect(await client.subscribe(['again', 1])).toEqual([1])
    await until(() => client.messages.length === 1, 'the retained one')
    expect(await client.subscribe(['again', 0])).toEqual([0])
    await until(() => client.messages.length === 2, 'the retained one again')
    await client.publish('again', 'live', { qos: 1 })
    await client.settle()
    expect(brief(client.messages)).toEqual([
      ['again', 'kept', 1],
      ['again', 'kept', 0],
      ['again', 'live', 0],
    ])
    await client.publish('again', '', { retain: true })
    await client.leave()
  })

  test('[MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-3] an unsubscription is of just that filter, and of now', async () => {
    const client = await join(port)
    await client.subscribe(['u/a', 1], ['u/+', 0], ['u/b', 2])
    await client.unsubscribe('u/+', 'u/c')
    await client.publish('u/a', 'x', { qos: 1 })
    await client.publish('u/c', 'x', { qos: 1 })
    await client.publish('u/b', 'x', { qos: 2 })
    await client.unsubscribe('u/a', 'u/b')
    await client.publish('u/a', 'y', { qos: 1 })
    await client.settle()
    expect(brief(client.messages)).toEqual([
      ['u/a', 'x', 1],
      ['u/b', 'x', 2],
    ])
    await client.leave()
  })

  test('[MQTT-3.9.3-2] a refused one is none, in the next session neither', async () => {
    const client = await join(port, { clientId: 'refused', clean: false })
    expect(await client.subscribe(['x/nosubscribe', 1], ['x/y', 1], ['nosubscribe', 2])).toEqual([128, 1, 128])
    await client.leave()
    const other = await join(port)
    await other.publish('x/nosubscribe', '', { qos: 1 })
    await other.publish('x/y', '', { qos: 1 })
    const back = await join(port, { clientId: 'refused', clean: false })
    await until(() => back.messages.length > 0, 'a message')
    await back.settle()
    expect(back.messages.map(({ topic }) => topic)).toEqual(['x/y'])
    await Promise.all([back.leave(), other.leave()])
  })

  test('4.6 messages of one topic and QoS come in the order they were sent', async () => {
    const [from, to] = [await join(port), await join(port)]
    await to.subscribe(['order/+', 2])
    const numbers = Array.from({ length: 300 }, (_, index) => String(index))
    await Promise.all(
      ([0, 1, 2] as const).flatMap((qos) => numbers.map((number) => from.publish(`order/${qos}`, number, { qos }))),
    )
    await until(() => to.messages.length === 900, 'all messages')
    for (const qos of [0, 1, 2])
      expect(to.messages.filter(({ topic }) => topic === `order/${qos}`).map(({ payload }) => payload)).toEqual(numbers)
    await Promise.all([from.leave(), to.leave()])
  })
})

describe('quality of service', () => {
  test('[MQTT-3.3.1-3] DUP is not passed on', async () => {
    const client = await join(port)
    await client.subscribe(['dup/+', 2])
    await client.publish('dup/1', 'x', { qos: 1, dup: true })
    await client.publish('dup/2', 'x', { qos: 2, dup: true })
    await until(() => client.messages.length === 2, 'both')
    expect(client.messages.map(({ dup }) => dup)).toEqual([false, false])
    await client.leave()
  })

  test('[MQTT-4.4.0-1] [MQTT-3.3.1-1] what was not acknowledged comes again with its number and DUP', async () => {
    const deaf = await join(port, { clientId: 'q1', clean: false, acknowledges: false })
    await deaf.subscribe(['q1/+', 2])
    const other = await join(port)
    await other.publish('q1/one', 'a', { qos: 1 })
    await other.publish('q1/two', 'b', { qos: 2 })
    await until(() => deaf.messages.length === 2, 'both')
    const before = deaf.messages.map(({ topic, messageId }) => [topic, messageId])
    await deaf.drop()
    await other.publish('q1/one', 'c', { qos: 1 })
    const back = await join(port, { clientId: 'q1', clean: false, acknowledges: false })
    expect(back.sessionPresent).toBe(true)
    await until(() => back.messages.length === 3, 'all three')
    expect(back.messages.slice(0, 2).map(({ topic, messageId }) => [topic, messageId])).toEqual(before)
    expect(back.messages.map(({ dup }) => dup)).toEqual([true, true, false])
    // [MQTT-2.3.1-4]
    expect(new Set(back.messages.map(({ messageId }) => messageId)).size).toBe(3)
    // [MQTT-4.3.3-1] after PUBREC the message is the client's, and PUBREL comes again.
    const number = back.messages[1]?.messageId as number
    back.send({ cmd: 'pubrec', messageId: number })
    expect((await back.next('pubrel')).messageId).toBe(number)
    await back.drop()
    const third = await join(port, { clientId: 'q1', clean: false })
    expect((await third.next('pubrel')).messageId).toBe(number)
    await until(() => third.messages.length === 2, 'the others')
    await third.settle()
    expect(third.messages.map(({ payload }) => payload)).toEqual(['a', 'c'])
    await third.leave()
    const fourth = await join(port, { clientId: 'q1', clean: false })
    await fourth.settle()
    expect(fourth.messages).toEqual([])
    expect(fourth.packets.some(({ cmd }) => cmd === 'pubrel')).toBe(false)
    await Promise.all([fourth.leave(), other.leave()])
  })

  test('[MQTT-4.3.3-2] a message at QoS 2 that comes again before its PUBREL is passed on once', async () => {
    const watcher = await join(port)
    await watcher.subscribe(['q2', 2])
    const message = { cmd: 'publish', topic: 'q2', payload: 'x', qos: 2, retain: false, messageId: 77 } as const
    const sender = await join(port, { clientId: 'q2', clean: false })
    sender.send({ ...message, dup: false })
    await sender.next('pubrec')
    await sender.drop()
    const again = await join(port, { clientId: 'q2', clean: false })
    again.send({ ...message, dup: true })
    await again.next('pubrec')
    again.send({ cmd: 'pubrel', messageId: 77 })
    await again.next('pubcomp')
    // The number is free for another message now.
    again.send({ ...message, payload: 'y', dup: false })
    await again.next('pubrec')
    await watcher.settle()
    expect(watcher.messages.map(({ payload }) => payload)).toEqual(['x', 'y'])
    await Promise.all([again.leave(), watcher.leave()])
  })
})

test('only the broker speaks under $SYS: whoever else tries is disconnected', async () => {
  const client = await join(port)
  await client.publish('$SYS/x', 'x').catch(() => undefined)
  await client.whenClosed()
})
