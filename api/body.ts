import type { Context } from 'koa'
import rawBody from 'raw-body'
import { AppError } from '../schemas/errors.ts'
import { decodeJson, jsonFault } from '../schemas/json.ts'
import { endUnread } from './end-unread.ts'

/**
 * Reads a JSON body, whatever its Content-Type says; undefined if there is none. Call it once the caller is known: until then
 * nothing of a body is read, and who asks first (`Expect: 100-continue`) is not told to send it. Of equal keys in an object the
 * last one counts. Throws UNSUPPORTED_MEDIA_TYPE, PAYLOAD_TOO_LARGE, INVALID_INPUT.
 */
export async function readJson(ctx: Context, maxBytes: number): Promise<unknown> {
  const encoding = ctx.get('content-encoding')
  if (encoding !== '' && encoding.toLowerCase() !== 'identity') {
    throw new AppError('UNSUPPORTED_MEDIA_TYPE', `Content-Encoding ${encoding} is not taken: send the body as it is.`)
  }
  try {
    const length = ctx.get('content-length')
    if (Number(length) > maxBytes) throw tooLarge(maxBytes)
    if (expectsContinue(ctx)) {
      ctx.res.writeContinue()
      ctx.state.continued = true
    }
    const bytes = await rawBody(ctx.req, { limit: maxBytes })
    const body = bytes.length === 0 ? undefined : decodeJson(bytes)
    const fault = jsonFault(body)
    if (fault) throw new AppError('INVALID_INPUT', `The body ${fault}.`, [{ path: 'body', message: fault }])
    return body
  } catch (error) {
    if (error instanceof AppError) throw error
    const { status, message } = error as Error & { status?: number }
    throw status === 413 ? tooLarge(maxBytes) : notJson(message)
  } finally {
    // What is still sent after a refusal is read and thrown away: unread, it would block the connection's next request.
    ctx.req.resume()
  }
}

/** The rest of a stranger's body: a small one is thrown away as it comes, with all others the connection ends. */
export function leaveUnread(ctx: Context, maxBytes: number): void {
  if (ctx.req.complete) return
  const length = ctx.get('content-length')
  if (length !== '') {
    if (Number(length) > maxBytes) ctx.res.once('close', () => !ctx.req.complete && endUnread(ctx.req.socket))
    return
  }
  let left = maxBytes
  ctx.req.on('data', (chunk: Buffer) => {
    left -= chunk.length
    if (left < 0) ctx.req.destroy()
  })
}

/** Who was not told to go on may or may not send its body: where the next request begins, nobody knows. */
export const endsWithoutBody = (ctx: Context): boolean => expectsContinue(ctx) && !ctx.state.continued

const expectsContinue = (ctx: Context): boolean => ctx.get('expect').toLowerCase() === '100-continue'

const tooLarge = (maxBytes: number): AppError =>
  new AppError('PAYLOAD_TOO_LARGE', `The body is larger than ${maxBytes} bytes.`)

const notJson = (message: string): AppError =>
  new AppError('INVALID_INPUT', `The body is not JSON in UTF-8: ${message}`, [{ path: 'body', message }])
