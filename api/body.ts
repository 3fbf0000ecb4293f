import { bodyParser } from '@koa/bodyparser'
import type { Middleware } from 'koa'
import { AppError } from '../schemas/errors.ts'

/** Reads JSON bodies, whatever their Content-Type says they are: a body that is not JSON is INVALID_INPUT. */
export function jsonBody(maxBytes: number): Middleware {
  return bodyParser({
    enableTypes: ['json'],
    detectJSON: () => true,
    jsonStrict: false,
    encoding: 'utf-8',
    jsonLimit: maxBytes,
    parsedMethods: ['POST', 'PUT', 'PATCH', 'DELETE'],
    onError(error) {
      const { status, message } = error as Error & { status?: number }
      if (status === 413) throw new AppError('PAYLOAD_TOO_LARGE', `The body is larger than ${maxBytes} bytes.`)
      throw new AppError('INVALID_INPUT', `The body is not JSON in UTF-8: ${message}`, [{ path: 'body', message }])
    },
  })
}
