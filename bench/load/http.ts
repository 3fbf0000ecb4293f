import { Pool } from 'undici'

export interface Http extends AsyncDisposable {
  /**
   * POST of JSON that is already text; answers what came back. Throws unless it has the expected status, 201 as a rule. The first
   * answers of a connection include its making.
   */
  post(path: string, json: string, expected?: number): Promise<string>
}

/** Cheap for the caller: undici's lowest level, keep-alive, one request at a time per connection. */
export function openHttp(origin: string, options: { token: string; connections: number }): Http {
  const pool = new Pool(origin, { connections: options.connections, pipelining: 1 })
  const headers = { authorization: `Bearer ${options.token}`, 'content-type': 'application/json' }
  return {
    post: (path, body, expected = 201) =>
      new Promise((resolve, reject) => {
        let status = 0
        const chunks: Buffer[] = []
        pool.dispatch(
          { path, method: 'POST', headers, body },
          {
            onRequestStart() {},
            onResponseStart(_controller, statusCode) {
              status = statusCode
            },
            onResponseData(_controller, chunk) {
              chunks.push(chunk)
            },
            onResponseEnd() {
              const text = (chunks.length === 1 ? chunks[0] : Buffer.concat(chunks))?.toString() ?? ''
              if (status === expected) resolve(text)
              else reject(new Error(`POST ${path}: ${status} ${text}`))
            },
            onResponseError(_controller, error) {
              reject(error)
            },
          },
        )
      }),
    async [Symbol.asyncDispose]() {
      await pool.destroy()
    },
  }
}
