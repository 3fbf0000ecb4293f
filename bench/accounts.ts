import { openHttp } from './load/http.ts'
import { ADMIN_TOKEN } from './signalbox.ts'
import type { Stand } from './stand.ts'

/** A client as it logs in. Without a key: a broker that asks for none. */
export interface Account {
  id: string
  key?: string
}

const CALLERS = 32

export const plainAccounts = (count: number): Account[] =>
  Array.from({ length: count }, (_, index) => ({ id: `device-${String(index + 1).padStart(5, '0')}` }))

/** Registers clients over HTTP in a new database; it stays for the run, to be copied. */
export async function registerAccounts(
  stand: Stand,
  count: number,
): Promise<{ template: string; accounts: Account[] }> {
  const { measuring } = stand
  stand.measuring = 'registering'
  stand.say(`registering ${count} clients`)
  const database = await stand.createDatabase()
  const accounts = plainAccounts(count)
  {
    await using server = await stand.startServer(database)
    await using http = openHttp(server.http, { token: ADMIN_TOKEN, connections: CALLERS })
    const queue = accounts.values()
    const register = async (): Promise<void> => {
      for (const account of queue) {
        account.key = JSON.parse(await http.post('/api/clients', JSON.stringify({ id: account.id }))).clientKey
      }
    }
    await Promise.all(Array.from({ length: CALLERS }, register))
  }
  stand.measuring = measuring
  await database.query('vacuum analyze')
  await database.leave()
  return { template: database.name, accounts }
}
