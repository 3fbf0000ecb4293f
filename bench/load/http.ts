import { Pool } from 'undici'

interface Answer {
  status: number
  text: string
}

export interface Http extends AsyncDisposable {
  /** POST of JSON that is already text. The first answers of a connection include its making. */
  post(path: string, json: string): Promise<Answer>
}

/** Cheap for the caller: undici's lowest level, keep-alive, one request at a time per connection. */
export function openHttp(origin: string, options: { token: string; connections: number }): Http {
  const pool = new Pool(origin, { connections: options.connections, pipelining: 1 })
  const headers = { authorization: `Bearer ${options.token}`, 'content-type': 'application/json' }
  return {
    post: (path, body) =>
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
              resolve({ status, text: (chunks.length === 1 ? chunks[0] : Buffer.concat(chunks))?.toString() ?? '' })
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
