import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { run } from '../cli/support/run.ts'
import { createTestDatabase } from '../support/database.ts'
import { startRedis } from '../support/redis.ts'
import { hasTool } from '../support/tools.ts'

const has = hasTool('redis-server', 'redis-server')

test.skipIf(!has)('the demo proves every execution on two nodes, too', { timeout: 90_000 }, async () => {
  const DATA_DIR = mkdtempSync(join(tmpdir(), 'signalbox-demo-'))
  onTestFinished(() => rmSync(DATA_DIR, { recursive: true, force: true }))
  const { code, stdout, stderr } = await run(['demo', '--nodes', '2'], { env: { DATA_DIR } })
  expect({ code, stderr, stdout }).toMatchObject({ code: 0 })
  expect(stdout).toMatch(/another node: http:\/\/127\.0\.0\.1:\d+\/api, mqtt:/)
  expect(stdout).toMatch(/8 online, .* spread over 2 nodes/)
  expect(stdout).toMatch(/ledger, journals and effects agree: 14 executions, 13 completed, 1 cancelled/)
})

test('without a redis-server it says what it needs', { timeout: 60_000 }, async () => {
  const DATA_DIR = mkdtempSync(join(tmpdir(), 'signalbox-demo-'))
  onTestFinished(() => rmSync(DATA_DIR, { recursive: true, force: true }))
  const { code, stderr } = await run(['demo', '--nodes', '2'], { env: { DATA_DIR, PATH: '/usr/bin/nowhere' } })
  expect(code).toBe(1)
  expect(stderr).toContain('apt-get install redis-server')
})

test.skipIf(!has)(
  'doctor tries the Redis that is named, and shows no password of it',
  { timeout: 60_000 },
  async () => {
    const redis = await startRedis()
    const database = await createTestDatabase()
    onTestFinished(async () => {
      await redis.stop()
      await database.drop()
    })
    const ports = { HTTP_PORT: '0', MQTT_PORT: '0', MQTT_WS_PORT: '0' }
    const look = async (REDIS_URL: string) => {
      const { code, stdout } = await run(['doctor', '--json'], {
        env: { ...ports, DATABASE_URL: database.url, REDIS_URL },
      })
      return { code, stdout, redis: JSON.parse(stdout).checks.find(({ name }: { name: string }) => name === 'Redis') }
    }
    expect(await look(redis.url)).toMatchObject({ code: 0, redis: { state: 'ok' } })
    await redis.kill()
    const ill = await look(redis.url.replace('redis://', 'redis://user:hidden@'))
    expect(ill).toMatchObject({ code: 1, redis: { state: 'broken', detail: expect.stringContaining('ECONNREFUSED') } })
    expect(ill.stdout).not.toContain('hidden')
  },
)
