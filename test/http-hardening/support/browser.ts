import { type Agent, type IncomingMessage, type OutgoingHttpHeaders, request } from 'node:http'
import { learnSecrets } from '../../support/secrets.ts'
import type { TestServer } from '../../support/server.ts'

export interface BrowserAnswer {
  status: number
  headers: IncomingMessage['headers']
  // biome-ignore lint/suspicious/noExplicitAny: tests read fields of many shapes and assert on them
  body: any
}

/** A request with exactly these headers: `fetch` sets some of a browser's itself. */
export function send(
  server: Pick<TestServer, 'http'>,
  method: string,
  path: string,
  headers: OutgoingHttpHeaders = {},
  body?: unknown,
  agent?: Agent,
): Promise<BrowserAnswer> {
  return new Promise((resolve, reject) => {
    request(`${server.http}${path}`, { method, headers, ...(agent ? { agent } : {}) }, (answer) => {
      let text = ''
      answer.setEncoding('utf8').on('data', (chunk) => {
        text += chunk
      })
      answer.on('end', () =>
        resolve({
          status: answer.statusCode as number,
          headers: answer.headers,
          body: text.startsWith('{') ? JSON.parse(text) : text,
        }),
      )
      answer.on('error', reject)
    })
      .on('error', reject)
      .end(body === undefined ? undefined : JSON.stringify(body))
  })
}

export interface Browser {
  /** As the Cookie header has it. */
  cookie: string
  csrfToken: string
  setCookie: string
  // biome-ignore lint/suspicious/noExplicitAny: as above
  answer: any
  /** As the console's own page would. */
  send(method: string, path: string, body?: unknown): Promise<BrowserAnswer>
}

/** Logs a browser in, or throws what it was answered. */
export async function logIn(server: Pick<TestServer, 'http'>, token: string, cookie?: string): Promise<Browser> {
  const before = cookie === undefined ? {} : { cookie }
  const opened = await send(server, 'POST', '/api/session', { 'sec-fetch-site': 'same-origin', ...before }, { token })
  const setCookie = opened.headers['set-cookie']?.[0]
  learnSecrets(setCookie ?? '')
  if (opened.status !== 201 || setCookie === undefined)
    throw new Error(`${opened.status} ${JSON.stringify(opened.body)}`)
  const { csrfToken } = opened.body
  const session = setCookie.slice(0, setCookie.indexOf(';'))
  const own = { cookie: session, 'sec-fetch-site': 'same-origin', 'x-csrf-token': csrfToken }
  return {
    cookie: session,
    csrfToken,
    setCookie,
    answer: opened.body,
    send: (method, path, body) => send(server, method, `/api${path}`, own, body),
  }
}
