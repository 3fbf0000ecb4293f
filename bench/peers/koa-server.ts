import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import Koa from 'koa'

export interface KoaServer {
  origin(): string
}

/** Koa that answers nothing: the most that any API on it can reach. */
export async function create(): Promise<KoaServer> {
  const app = new Koa()
  app.use((ctx) => {
    ctx.status = 204
  })
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { origin: () => `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
}
