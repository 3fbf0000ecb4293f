import { once } from 'node:events'
import type { AddressInfo, ListenOptions, Server } from 'node:net'

/** Where a server listens, and the setting that says so. */
export interface Place {
  host: string
  port: number
  setting: string
}

/** Listens and answers the port. Throws an error that names the setting if it is taken. */
export async function bind(
  server: Server,
  { host, port, setting }: Place,
  options: Pick<ListenOptions, 'backlog'> = {},
): Promise<number> {
  server.listen({ host, port, ...options })
  try {
    await once(server, 'listening')
  } catch (error) {
    const taken = (error as NodeJS.ErrnoException).code === 'EADDRINUSE'
    throw taken ? new Error(`${setting}: port ${port} on ${host} is taken; choose another or stop what uses it`) : error
  }
  return (server.address() as AddressInfo).port
}
