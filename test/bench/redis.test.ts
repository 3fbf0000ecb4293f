import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { startRedis, watchRedis } from '../../bench/peers/redis.ts'
import { hasTool } from '../support/tools.ts'

test.skipIf(!hasTool('redis-server', 'redis-server'))(
  'what others ask of Redis is counted, and nothing else',
  async () => {
    await using cleanup = new AsyncDisposableStack()
    const directory = await mkdtemp(join(tmpdir(), 'signalbox-bench-test-'))
    cleanup.defer(() => rm(directory, { recursive: true }))
    const { socketPath } = cleanup.use(await startRedis(directory, 'nodes'))
    const counters = cleanup.use(await watchRedis(socketPath))
    const read = () => Promise.all([counters.roundTrips(), counters.messages()])

    const [tripsBefore, messagesBefore] = await read()
    const client = createConnection(socketPath)
    client.end('PUBLISH hints a\r\nPUBLISH hints b\r\nSET key value\r\nGET key\r\n')
    client.resume()
    await once(client, 'close')
    const [trips, messages] = await read()
    expect([trips - tripsBefore, messages - messagesBefore]).toEqual([4, 2])
  },
)
