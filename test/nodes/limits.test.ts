import { describe, expect, test } from 'vitest'
import type { Grant } from '../../schemas/principals.ts'
import { grant, principal } from '../access/support/principals.ts'
import { createTestDatabase } from '../support/database.ts'
import { httpClient } from '../support/http.ts'
import { startRedis } from '../support/redis.ts'
import { type ServerProcess, startServerProcess } from '../support/server-process.ts'
import { hasTool } from '../support/tools.ts'

describe.skipIf(!hasTool('redis-server', 'redis-server'))('limits', () => {
  test('per minute and per day are exact across two processes', { timeout: 60_000 }, async () => {
    const redis = await startRedis()
    const database = await createTestDatabase()
    const servers: ServerProcess[] = []
    try {
      const settings = { REDIS_URL: redis.url }
      for (let i = 0; i < 2; i++) servers.push(await startServerProcess(database, { settings }))
      const [a] = servers as [ServerProcess]
      await a.api.post('/clients', { id: 'c' })
      const most = async (limit: Partial<Grant>): Promise<Record<number, number>> => {
        const { token } = await principal(a, 'operator', [grant('*', limit)])
        const answers: Record<number, number> = {}
        const callers = servers.flatMap(({ url }) => Array.from({ length: 5 }, () => httpClient(url, token)))
        await Promise.all(
          callers.map(async (api) => {
            for (let i = 0; i < 8; i++) {
              const { status } = await api.post('/commands', { clientId: 'c', action: 'do' })
              answers[status] = (answers[status] ?? 0) + 1
            }
          }),
        )
        return answers
      }
      expect(await most({ commandsPerMinute: 50 })).toEqual({ 201: 50, 429: 30 })
      expect(await most({ maxCommandsPerDay: 30 })).toEqual({ 201: 30, 429: 50 })
    } finally {
      for (const server of servers) await server.kill()
      await database.drop()
      await redis.stop()
    }
  })
})
