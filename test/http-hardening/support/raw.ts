import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { ANSWER_HEADERS } from '../../../api/headers.ts'
import { Problem } from '../../../schemas/errors.ts'
import { ADMIN_TOKEN, type TestServer } from '../../support/server.ts'

export interface RawAnswer {
  status: number
  headers: Map<string, string>
  body: string
}

/** What came back on a connection until the server closed it, or until it had answered and was silent when asked again. */
export interface RawExchange {
  answers: RawAnswer[]
  closed: boolean
}

export const AUTHORIZED = `Authorization: Bearer ${ADMIN_TOKEN}`
export const crlf = (...lines: string[]): string => lines.join('\r\n')
/** A request's head: its line, Host, a token, further headers. */
export const head = (line: string, ...headers: string[]): string =>
  crlf(line, 'Host: x', AUTHORIZED, ...headers, '', '')
/** A POST with a body and its length. */
export const post = (path: string, body: string, ...headers: string[]): string =>
  head(`POST ${path} HTTP/1.1`, `Content-Length: ${Buffer.byteLength(body)}`, ...headers) + body

export const portOf = (server: Pick<TestServer, 'http'>): number => Number(new URL(server.http).port)

export async function openSocket(server: Pick<TestServer, 'http'>): Promise<Socket> {
  const socket = connect(portOf(server), '127.0.0.1')
  // What is refused may be reset; what was read before counts.
  socket.on('error', () => undefined)
  await once(socket, 'connect')
  return socket
}

/** Sends the pieces one after the other and reads until `enough`, or the server's end of the connection. */
export async function exchange(
  server: Pick<TestServer, 'http'>,
  pieces: (string | Buffer)[],
  enough = 1,
): Promise<RawExchange> {
  const socket = await openSocket(server)
  let text = ''
  socket.on('data', (chunk) => {
    text += chunk.toString('latin1')
  })
  let gone = false
  const closed = new Promise<void>((resolve) => {
    socket.once('close', () => {
      gone = true
      resolve()
    })
  })
  for (const piece of pieces) {
    if (socket.destroyed || !socket.writable) break
    if (!socket.write(piece)) await Promise.race([once(socket, 'drain').catch(() => undefined), closed])
  }
  while (!gone && finals(parseAnswers(text)).length < enough) await Promise.race([once(socket, 'data'), closed])
  const exchanged = { answers: parseAnswers(text), closed: gone }
  socket.destroy()
  return exchanged
}

const finals = (answers: RawAnswer[]): RawAnswer[] => answers.filter(({ status }) => status >= 200)

/** The complete answers in a text; the bodies of streams are not among them. */
export function parseAnswers(text: string): RawAnswer[] {
  const answers: RawAnswer[] = []
  for (let rest = text; rest !== ''; ) {
    const end = rest.indexOf('\r\n\r\n')
    const line = /^HTTP\/1\.1 (\d{3}) /.exec(rest)
    if (end < 0 || !line) break
    const headers = new Map(
      rest
        .slice(0, end)
        .split('\r\n')
        .slice(1)
        .map((header) => {
          const colon = header.indexOf(':')
          return [header.slice(0, colon).toLowerCase(), header.slice(colon + 1).trim()]
        }),
    )
    const length = Number(headers.get('content-length') ?? 0)
    if (rest.length < end + 4 + length) break
    answers.push({ status: Number(line[1]), headers, body: rest.slice(end + 4, end + 4 + length) })
    rest = rest.slice(end + 4 + length)
  }
  return answers
}

/** What every refusal has to be: a problem with its code, under all headers, and no 500. */
export function faultsOf({ status, headers, body }: RawAnswer): string[] {
  const faults: string[] = []
  if (status >= 500) faults.push(`status ${status}`)
  if (!/^[0-9a-zA-Z._-]{1,64}$/.test(headers.get('x-request-id') ?? '')) faults.push('no X-Request-Id')
  for (const [name, value] of Object.entries(ANSWER_HEADERS)) {
    if (headers.get(name.toLowerCase()) !== value) faults.push(`${name} is ${headers.get(name.toLowerCase())}`)
  }
  if (status >= 400 && body !== '') {
    if (!headers.get('content-type')?.startsWith('application/problem+json')) faults.push('no problem')
    else if (Problem.safeParse(JSON.parse(body)).data?.status !== status)
      faults.push(`not a problem of ${status}: ${body}`)
  }
  if (/sb[kst]_[a-z0-9]|\bat .*\.ts:|select .* from|password/i.test(body)) faults.push(`shows internals: ${body}`)
  return faults
}

export const codeOf = ({ body }: RawAnswer): string | undefined =>
  body.startsWith('{') ? (JSON.parse(body) as { code?: string }).code : undefined
