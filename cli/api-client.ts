/** Calls the API: method, path below /api, body. Throws with the problem's code and detail. */
export type Api = <T>(method: string, path: string, body?: unknown) => Promise<T>

export function connectApi(base: string, token: string): Api {
  return async <T>(method: string, path: string, body?: unknown): Promise<T> => {
    const response = await fetch(`${base}/api${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const answer = await response.json()
    if (!response.ok) {
      const { code, detail } = answer as { code: string; detail: string }
      throw new Error(`${method} ${path}: ${code}: ${detail}`)
    }
    return answer as T
  }
}
