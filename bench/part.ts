import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

export interface Order {
  id: number
  method: string
  args: unknown[]
}

/** `id` 0 says that the part is there. */
export interface Answer {
  id: number
  value?: unknown
  error?: string
}

// biome-ignore lint/suspicious/noExplicitAny: any method of any part
type Methods = Record<string, (...args: any[]) => unknown>

/** A module that runs as a process of its own; its methods are called from here. */
export type Part<M> = AsyncDisposable & {
  pid: number
  call: {
    [Name in keyof M]: M[Name] extends (...args: infer A) => infer R ? (...args: A) => Promise<Awaited<R>> : never
  }
}

/**
 * Starts a process that calls the module's `create(options)`. A method that throws rejects here; if the process ends before
 * it is disposed of, everything that waits rejects.
 */
export async function startPart<M>(module: URL, options: unknown): Promise<Part<M>> {
  const child = fork(fileURLToPath(new URL('./part-host.ts', import.meta.url)), { serialization: 'advanced' })
  const waiting = new Map<number, PromiseWithResolvers<unknown>>()
  const ask = (id: number): Promise<unknown> => {
    const asked = Promise.withResolvers<unknown>()
    waiting.set(id, asked)
    return asked.promise
  }
  child.on('message', ({ id, value, error }: Answer) => {
    const asked = waiting.get(id)
    waiting.delete(id)
    if (error === undefined) asked?.resolve(value)
    else asked?.reject(new Error(`${module.pathname}: ${error}`))
  })
  const exited = once(child, 'exit').then(([code, signal]) => {
    for (const { reject } of waiting.values()) reject(new Error(`${module.pathname} ended with ${signal ?? code}`))
    waiting.clear()
  })
  const ready = ask(0)
  child.send({ module: module.href, options })
  await ready

  let lastId = 0
  const call = new Proxy({} as Methods, {
    get:
      (_, method: string) =>
      (...args: unknown[]) => {
        const answer = ask(++lastId)
        if (child.connected) child.send({ id: lastId, method, args } satisfies Order)
        else waiting.get(lastId)?.reject(new Error(`${module.pathname} has ended`))
        return answer
      },
  })
  return {
    pid: child.pid as number,
    call: call as Part<M>['call'],
    async [Symbol.asyncDispose]() {
      if (child.connected) child.disconnect()
      await exited
    },
  }
}
