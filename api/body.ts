import type { Context, Middleware } from 'koa'
import rawBody from 'raw-body'
import { AppError } from '../schemas/errors.ts'

/** Reads JSON bodies into `ctx.state.body`, whatever their Content-Type says; undefined where there is none. */
export function jsonBody(maxBytes: number): Middleware {
  return async (ctx, next) => {
    ctx.state.body = await read(ctx, maxBytes)
    await next()
  }
}

async function read(ctx: Context, maxBytes: number): Promise<unknown> {
  const encoding = ctx.get('content-encoding')
  if (encoding !== '' && encoding !== 'identity') throw notJson(`Content-Encoding ${encoding} is not taken`)
  try {
    const bytes = await rawBody(ctx.req, { limit: maxBytes })
    if (bytes.length === 0) return undefined
    // `fatal`: otherwise U+FFFD took the place of what is not UTF-8, and the command would be stored changed.
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (error) {
    if (error instanceof AppError) throw error
    const { status, message } = error as Error & { status?: number }
    if (status === 413) throw new AppError('PAYLOAD_TOO_LARGE', `The body is larger than ${maxBytes} bytes.`)
    throw notJson(message)
  } finally {
    // What is still sent after a refusal is read and thrown away: unread, it would block the connection's next request.
    ctx.req.resume()
  }
}

const notJson = (message: string): AppError =>
  new AppError('INVALID_INPUT', `The body is not JSON in UTF-8: ${message}`, [{ path: 'body', message }])
