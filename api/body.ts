import { isUtf8 } from 'node:buffer'
import { bodyParser } from '@koa/bodyparser'
import type { Context, Middleware } from 'koa'
import { AppError } from '../schemas/errors.ts'

/** Reads JSON bodies, whatever their Content-Type says they are: a body that is not JSON in UTF-8 is INVALID_INPUT. */
export function jsonBody(maxBytes: number): Middleware {
  const parse = bodyParser({
    enableTypes: ['json'],
    detectJSON: () => true,
    jsonStrict: false,
    encoding: 'utf-8',
    jsonLimit: maxBytes,
    parsedMethods: ['POST', 'PUT', 'PATCH', 'DELETE'],
    onError(error) {
      const { status, message } = error as Error & { status?: number }
      if (status === 413) throw new AppError('PAYLOAD_TOO_LARGE', `The body is larger than ${maxBytes} bytes.`)
      throw notJson(message)
    },
  })
  return async (ctx, next) => {
    const chunks: Buffer[] = []
    const keep = (chunk: Buffer): void => void chunks.push(chunk)
    ctx.req.on('data', keep)
    try {
      await parse(ctx, async () => undefined)
    } finally {
      ctx.req.off('data', keep)
      // What is still sent after a refusal is thrown away: unread, it would block the connection's next request.
      ctx.req.resume()
    }
    checkEncoding(ctx, chunks)
    await next()
  }
}

/** The parser replaces what is not UTF-8 by U+FFFD: refused, because a command would be stored changed. */
function checkEncoding(ctx: Context, chunks: Buffer[]): void {
  const { rawBody } = ctx.request as { rawBody?: string }
  const compressed = ctx.get('content-encoding') !== '' && ctx.get('content-encoding') !== 'identity'
  if (!rawBody?.includes('\ufffd') || compressed) return
  if (!isUtf8(Buffer.concat(chunks))) throw notJson('some bytes are not UTF-8')
}

const notJson = (message: string): AppError =>
  new AppError('INVALID_INPUT', `The body is not JSON in UTF-8: ${message}`, [{ path: 'body', message }])
