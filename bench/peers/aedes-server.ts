import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { Aedes } from 'aedes'

export interface AedesServer {
  port(): number
}

/** Aedes as its README starts it: no authentication, nothing kept. */
export async function create(): Promise<AedesServer> {
  const broker = await Aedes.createBroker()
  const server = createServer(broker.handle)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { port: () => (server.address() as AddressInfo).port }
}
