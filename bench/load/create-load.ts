import { openHttp } from './http.ts'
import { createRateLoad, type RateLoad } from './rate-load.ts'
import { commandFor } from './work.ts'

export interface CreateOrders {
  origin: string
  token: string
  clientIds: string[]
  connections: number
  /** The status of a good answer. */
  expected: number
}

/** Posts commands as fast as they are answered, over so many connections. */
export function create({ origin, token, clientIds, connections, expected }: CreateOrders): RateLoad {
  const http = openHttp(origin, { token, connections })
  return createRateLoad({
    callers: connections,
    outstanding: connections + 1,
    async begin(n, done) {
      await http.post('/api/commands', commandFor(clientIds[n % clientIds.length] as string, n), expected)
      done(n)
    },
  })
}
