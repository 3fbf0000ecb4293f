import { learnSecret, learnSecrets } from './secrets.ts'

/** The bootstrap administrator of every server under test. */
export const ADMIN_TOKEN = 'sbt_test-administrator-0123456789'
learnSecret(ADMIN_TOKEN)

export interface Answer<T = Record<string, unknown>> {
  status: number
  headers: Headers
  body: T
}

/** `fetch` with a token and JSON, as a back-end developer would call. */
export interface Http {
  // biome-ignore lint/suspicious/noExplicitAny: tests read fields of many shapes and assert on them
  get(path: string): Promise<Answer<any>>
  // biome-ignore lint/suspicious/noExplicitAny: as above
  send(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer<any>>
  // biome-ignore lint/suspicious/noExplicitAny: as above
  post(path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer<any>>
}

export function httpClient(base: string, token: string | undefined): Http {
  const send: Http['send'] = async (method, path, body, headers = {}) => {
    const response = await fetch(
      new URL(path.startsWith('/api') || path.startsWith('/health') ? path : `/api${path}`, base),
      {
        method,
        headers: {
          ...(token ? { authorization: `Bearer ${token}` } : {}),
          'content-type': 'application/json',
          ...headers,
        },
        ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
      },
    )
    const text = await response.text()
    learnSecrets(text)
    return { status: response.status, headers: response.headers, body: text ? JSON.parse(text) : undefined }
  }
  return { send, get: (path) => send('GET', path), post: (path, body, headers) => send('POST', path, body, headers) }
}
