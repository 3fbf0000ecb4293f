import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { stored } from '../api/support.ts'
import { ADMIN_TOKEN, startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { AUTHORIZED, codeOf, crlf, exchange, faultsOf, head, openSocket, post } from './support/raw.ts'

let server: TestServer
let before: Record<string, number>
beforeAll(async () => {
  server = await startServer({ HTTP_LOGIN_FAILURES_PER_MINUTE: 100_000 })
  await server.api.post('/clients', { id: 'c1' })
  await server.api.post('/commands', { clientId: 'c1', action: 'print' })
  before = await stored(server)
})
afterAll(() => server.stop())

afterEach(async () => {
  expect((await server.api.get('/health')).status, 'the server still answers').toBe(200)
  expect(await stored(server), 'nothing was stored').toEqual(before)
  expect(({} as Record<string, unknown>).polluted).toBeUndefined()
})

/** What is sent, and how it has to be answered: a status and code, or the end of the connection without an answer. */
type Case = [name: string, pieces: string | (string | Buffer)[], status: number, code?: string]

function refuses(cases: Case[]): void {
  test.each(cases)('%s', async (_name, pieces, status, code) => {
    const { answers } = await exchange(server, typeof pieces === 'string' ? [pieces] : pieces)
    expect(answers.map((answer) => answer.status)).toEqual([status])
    const [answer] = answers
    expect(answer && faultsOf(answer)).toEqual([])
    if (code !== undefined) expect(answer && codeOf(answer)).toBe(code)
  })
}

const COMMAND = '{"clientId":"nobody","action":"print"}'
const LENGTH = `Content-Length: ${COMMAND.length}`
const LINE = 'POST /api/commands HTTP/1.1'
const get = (target: string): string => head(`GET ${target} HTTP/1.1`)

describe('what is not HTTP/1.1 gets 400 and the end of the connection', () => {
  const lines = [
    'GET',
    'GET /api/clients HTTP/1.1 x',
    'GET /api/cli ents HTTP/1.1',
    'GET /api/clients HTTP/3.0',
    'GET /api/clients HTTP/1',
    'GET /api/clients http/1.1',
    'GET /api/clients FTP/1.1',
    'get /api/clients HTTP/1.1',
    'FETCH /api/clients HTTP/1.1',
    'GET\t/api/clients\tHTTP/1.1',
    ' GET /api/clients HTTP/1.1',
    'GET /api/\u0000clients HTTP/1.1',
    'GET /api/\u0001 HTTP/1.1',
    'GET \u007f HTTP/1.1',
    '{"clientId":"c1"}',
    '\u0016\u0003\u0001\u0002\u0000\u0001\u0000\u0001\u00fc\u0003\u0003',
    '\u0010\u0010\u0000\u0004MQTT\u0004\u0002\u0000<\u0000\u0004abcd',
  ]
  const headers = [
    'X-Bad : 1',
    'X Bad: 1',
    ': 1',
    'X-Bad',
    'X-B\u0000d: 1',
    'X-Bad: a\u0000b',
    'X-Bad: a\u0001b',
    'X-B(d: 1',
    ' folded: 1',
    'X-Bad: a\rb: c',
    'X-Bad: a\nTransfer-Encoding: chunked',
    '"X-Bad": 1',
    'Content-Length: -1',
    'Content-Length: +5',
    'Content-Length: 0x10',
    'Content-Length: 1e3',
    'Content-Length: 5 5',
    'Content-Length: ',
    'Content-Length: 99999999999999999999999999',
    'Content-Length: five',
    'Content-Length: 5.0',
    'Content-Length: 5, 5',
  ]
  refuses([
    ...lines.map(
      (line): Case => [JSON.stringify(line), crlf(line, 'Host: x', AUTHORIZED, '', ''), 400, 'INVALID_INPUT'],
    ),
    ...headers.map((line): Case => [JSON.stringify(line), head(LINE, line), 400, 'INVALID_INPUT']),
    ['HTTP/2 without an agreement', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400, 'INVALID_INPUT'],
    ['random bytes', [Buffer.from([...Array(400).keys()].map((at) => (at * 73 + 41) % 256))], 400, 'INVALID_INPUT'],
    ['no Host [RFC 9112, 3.2]', crlf('GET /health HTTP/1.1', '', ''), 400],
  ])
})

describe('two ways to see where a request ends are refused (request smuggling)', () => {
  const CHUNKED = 'Transfer-Encoding: chunked'
  const inner = crlf('DELETE /api/clients/c1 HTTP/1.1', 'Host: x', AUTHORIZED, '', '')
  const smuggled: [string, string[], string][] = [
    ['both', [CHUNKED, 'Content-Length: 4'], `0\r\n\r\n${inner}`],
    ['both, the other way round', ['Content-Length: 4', CHUNKED], `0\r\n\r\n${inner}`],
    ['two lengths', ['Content-Length: 0', `Content-Length: ${inner.length}`], inner],
    ['two equal lengths', ['Content-Length: 5', 'Content-Length: 5'], 'abcde'],
    ['chunked that is not the last coding', ['Transfer-Encoding: chunked, identity'], `0\r\n\r\n${inner}`],
    ['chunked twice and a length', [CHUNKED, CHUNKED, 'Content-Length: 4'], `0\r\n\r\n${inner}`],
    ['a blank before the colon', ['Transfer-Encoding : chunked', 'Content-Length: 4'], `0\r\n\r\n${inner}`],
    ['another coding and a length', ['Transfer-Encoding: xchunked', 'Content-Length: 4'], `0\r\n\r\n${inner}`],
    ['a tab in the coding, and a length', ['Transfer-Encoding:\tchunked', 'Content-Length: 4'], `0\r\n\r\n${inner}`],
    ['another case, and a length', ['tRANSFER-eNCODING: cHUNKED', 'Content-Length: 4'], `0\r\n\r\n${inner}`],
    ['a folded coding and a length', ['Transfer-Encoding:\r\n chunked', 'Content-Length: 4'], `0\r\n\r\n${inner}`],
    ['a chunk size that is no number', [CHUNKED], `xyz\r\n${inner}`],
    ['a negative chunk size', [CHUNKED], `-1\r\n${inner}`],
    ['a chunk size with 0x', [CHUNKED], `0x10\r\n${inner}`],
    ['a chunk size beyond 64 bits', [CHUNKED], `fffffffffffffffffff\r\n${inner}`],
    ['a chunk longer than its size', [CHUNKED], `1\r\nabc\r\n0\r\n\r\n${inner}`],
    ['a chunk without a line end', [CHUNKED], `1\r\na0\r\n\r\n${inner}`],
    ['a bare LF after a chunk size', [CHUNKED], `1\na\r\n0\r\n\r\n${inner}`],
    ['a bare CR after a chunk size', [CHUNKED], `1\ra\r\n0\r\n\r\n${inner}`],
  ]
  test.each(smuggled)('%s', async (_name, headers, rest) => {
    const { answers, closed } = await exchange(server, [head(LINE, ...headers) + rest], 2)
    expect(answers.length).toBeLessThanOrEqual(1)
    for (const answer of answers) {
      expect(answer.status).toBe(400)
      expect(faultsOf(answer)).toEqual([])
    }
    expect(closed, 'what follows is not read').toBe(true)
    expect((await server.api.get('/clients/c1')).status).toBe(200)
  })
})

describe('what may be said once only', () => {
  const twice = (first: string, second: string) => crlf('GET /api/clients HTTP/1.1', first, second, '', '')
  refuses([
    ['two hosts', twice(`Host: x\r\n${AUTHORIZED}`, 'Host: y'), 400, 'INVALID_INPUT'],
    ['two tokens', twice(`Host: x\r\n${AUTHORIZED}`, 'authorization: Bearer sbt_other'), 400, 'INVALID_INPUT'],
    ['two equal tokens', twice(`Host: x\r\n${AUTHORIZED}`, AUTHORIZED), 400, 'INVALID_INPUT'],
    ['two cookies headers', twice(`Host: x\r\nCookie: signalbox=a`, 'Cookie: signalbox=b'), 400, 'INVALID_INPUT'],
    ['two origins', head('GET /api/clients HTTP/1.1', 'Origin: http://a', 'Origin: http://b'), 400, 'INVALID_INPUT'],
    ['two content types', head(LINE, 'Content-Type: a/b', 'Content-Type: c/d'), 400, 'INVALID_INPUT'],
  ])
})

describe('sizes of the head', () => {
  const big = 'x'.repeat(17_000)
  refuses([
    ['a long path', get(`/${big}`), 431, 'HEADERS_TOO_LARGE'],
    ['a long query', get(`/api/clients?q=${big}`), 431, 'HEADERS_TOO_LARGE'],
    ['a long header', head(LINE, `X-Big: ${big}`), 431, 'HEADERS_TOO_LARGE'],
    ['a long header name', head(LINE, `${big}: 1`), 431, 'HEADERS_TOO_LARGE'],
    ['a long cookie', head(LINE, `Cookie: signalbox=${big}`), 431, 'HEADERS_TOO_LARGE'],
    ['a long token', crlf('GET /api/clients HTTP/1.1', 'Host: x', `Authorization: Bearer sbt_${big}`, '', ''), 431],
    ['many headers', head(LINE, ...Array.from({ length: 4000 }, (_, at) => `X-${at}: 1`)), 431, 'HEADERS_TOO_LARGE'],
    ['a long method', `${'X'.repeat(20_000)} / HTTP/1.1\r\n\r\n`, 400, 'INVALID_INPUT'],
    [
      'trailers without an end',
      [head(LINE, 'Transfer-Encoding: chunked'), '0\r\n', ...Array(40).fill(`X: ${'y'.repeat(1000)}\r\n`)],
      431,
    ],
    ['a path of 8 KB that is none', get(`/api/${'x'.repeat(8000)}`), 404, 'NOT_FOUND'],
    ['a thousand path segments', get(`/api${'/x'.repeat(1000)}`), 404, 'NOT_FOUND'],
    ['a query of 2,000 fields', get(`/api/clients?limit=0${'&a=1'.repeat(2000)}`), 400, 'INVALID_INPUT'],
  ])

  test('many small headers do not push one out that counts', async () => {
    const many = Array.from({ length: 1500 }, () => 'a: b')
    const request = crlf('GET /api/clients HTTP/1.1', 'Host: x', ...many, AUTHORIZED, '', '')
    expect((await exchange(server, [request])).answers[0]?.status).toBe(200)
  })
})

describe('paths that lead out, or nowhere', () => {
  const nowhere = [
    '/api/../health',
    '/api/clients/../../etc/passwd',
    '/../../../../etc/passwd',
    '/api/%2e%2e/health',
    '/api/..%2fhealth',
    '/api/clients/..%5c..%5c',
    '/api/clients/%2e%2e%2f%2e%2e%2fetc%2fpasswd',
    '/api/clients/c1%00',
    '/api/clients/c1%0d%0aX-Injected:%201',
    '/api/clients/%c0%ae%c0%ae/',
    '/api/clients/%ff',
    '/api/clients/%',
    '/api/clients/%zz',
    '/api/clients/%u002e',
    '/api//clients',
    '//api/clients',
    '///etc/passwd',
    '/API/clients/c1/../c1',
    '/api/clients;jsessionid=1',
    '/api/clients/__proto__',
    '/api/clients/constructor/prototype',
    '/api/actions/__proto__',
    '/api/actions/hasOwnProperty',
    '/api/commands/toString',
    '/__proto__',
    '/constructor',
    '/.env',
    '/.git/config',
    '/node_modules/koa/package.json',
    '/package.json',
    '/api',
    '/api/',
    '/metrics/../api/clients',
    `/api/clients/${encodeURIComponent("' or 1=1 --")}`,
    `/api/clients/${encodeURIComponent('"; drop table clients; --')}`,
    '/api/clients/$(id)',
    '/api/clients/%F0%9F%92%A3',
    '/\\api\\clients',
  ]
  refuses(nowhere.map((path): Case => [path, get(path), 404, 'NOT_FOUND']))

  test.each(['http://elsewhere/api/clients', 'http://user:secret@elsewhere:99/api/clients?limit=1'])(
    'the absolute form %s means its path [RFC 9112, 3.2.2]',
    async (target) => {
      const { answers } = await exchange(server, [get(target)])
      expect(answers.map(({ status }) => status)).toEqual([200])
    },
  )
  refuses([
    ['the absolute form of a path that is none', get('http://elsewhere/clients'), 404, 'NOT_FOUND'],
    ['another scheme', get('ftp://elsewhere/x'), 404, 'NOT_FOUND'],
    ['file:', get('file:///etc/passwd'), 404, 'NOT_FOUND'],
    ['GET *', get('*'), 404, 'NOT_FOUND'],
    ['no slash', get('api/clients'), 400],
  ])
})

describe('methods', () => {
  const unknown = [
    'TRACE',
    'PROPFIND',
    'LOCK',
    'MKCOL',
    'COPY',
    'MOVE',
    'SEARCH',
    'PURGE',
    'LINK',
    'M-SEARCH',
    'SUBSCRIBE',
    'REPORT',
    'QUERY',
    'BIND',
    'ACL',
    'SOURCE',
    'NOTIFY',
    'MERGE',
  ]
  refuses([
    ...unknown.map((method): Case => [method, head(`${method} /api/clients HTTP/1.1`), 404, 'NOT_FOUND']),
    ['CONNECT', head('CONNECT elsewhere:443 HTTP/1.1'), 404, 'NOT_FOUND'],
    ['DELETE of a list', head('DELETE /api/clients HTTP/1.1'), 404, 'NOT_FOUND'],
    [
      'an override of the method is none',
      post('/api/commands', '{}', 'X-HTTP-Method-Override: GET'),
      400,
      'INVALID_INPUT',
    ],
    ['OPTIONS says what there is', head('OPTIONS /api/clients HTTP/1.1'), 200],
    [
      'an upgrade is not taken',
      head('POST /api/nothing HTTP/1.1', 'Connection: Upgrade', 'Upgrade: websocket'),
      404,
      'NOT_FOUND',
    ],
    [
      'an upgrade to h2c is not taken',
      head('POST /api/nothing HTTP/1.1', 'Connection: Upgrade', 'Upgrade: h2c'),
      404,
      'NOT_FOUND',
    ],
  ])

  test.each(['/api/clients', '/api/clients/c1', '/health', '/metrics', '/api/events', '/api/session'])(
    'HEAD %s has no body, and the connection goes on',
    async (path) => {
      const socket = await openSocket(server)
      let text = ''
      socket.on('data', (chunk) => {
        text += chunk
      })
      socket.write(head(`HEAD ${path} HTTP/1.1`) + get('/health/live'))
      await until(() => text.includes('{"ok":true}'), 'both answers')
      expect(text.match(/^HTTP\/1\.1 200 OK/gm)).toHaveLength(2)
      expect(text.match(/\r\n\r\n/g)).toHaveLength(2)
      socket.destroy()
    },
  )
})

describe('bodies', () => {
  const bomb = 'x'.repeat(1_100_000)
  const json = (body: string): string => post('/api/commands', body)
  const wrong = [
    '',
    ' ',
    '{',
    '}',
    '[',
    '{"a"',
    '{"a":}',
    '{a:1}',
    "{'a':1}",
    '{"a":1,}',
    '[1,]',
    'undefined',
    'NaN',
    'Infinity',
    '-',
    '01',
    '1.',
    '.5',
    '+1',
    '"',
    '"\\x"',
    '"\\u12"',
    '"\n"',
    '//',
    '/**/{}',
    '{}{}',
    'null',
    'true',
    '0',
    '""',
    '[]',
    '<xml/>',
    'a=b&c=d',
    '--boundary',
    '%7B%7D',
  ]
  refuses([
    ...wrong.map((body): Case => [`JSON ${JSON.stringify(body)}`, json(body), 400, 'INVALID_INPUT']),
    ['100,000 levels', json('['.repeat(100_000) + ']'.repeat(100_000)), 400, 'INVALID_INPUT'],
    ['100,000 levels that do not end', json('{"a":'.repeat(100_000)), 400, 'INVALID_INPUT'],
    [
      '65 levels',
      json(`{"clientId":"nobody","action":"a","payload":${'['.repeat(65)}${']'.repeat(65)}}`),
      400,
      'INVALID_INPUT',
    ],
    [
      '100,000 keys',
      json(`{${Array.from({ length: 60_000 }, (_, at) => `"${at}":1`).join(',')}}`),
      400,
      'INVALID_INPUT',
    ],
    [
      '100,000 keys in the payload',
      json(
        `{"clientId":"nobody","action":"a","payload":{${Array.from({ length: 20_000 }, (_, at) => `"k${at}":1`).join(',')}}}`,
      ),
      404,
      'NOT_FOUND',
    ],
    ['an array of 500,000 numbers', json(`[${'1,'.repeat(500_000)}1]`), 400, 'INVALID_INPUT'],
    [
      'a number of 100,000 digits',
      json(`{"clientId":"nobody","action":"a","payload":${'9'.repeat(100_000)}}`),
      400,
      'INVALID_INPUT',
    ],
    ['__proto__', json('{"__proto__":{"polluted":1},"clientId":"c1","action":"a"}'), 400, 'INVALID_INPUT'],
    [
      '__proto__, escaped',
      json('{"\\u005f_proto__":{"polluted":1},"clientId":"c1","action":"a"}'),
      400,
      'INVALID_INPUT',
    ],
    [
      '__proto__, deep',
      json('{"clientId":"c1","action":"a","payload":{"b":[{"__proto__":{"polluted":1}}]}}'),
      400,
      'INVALID_INPUT',
    ],
    [
      'constructor.prototype at the top',
      json('{"constructor":{"prototype":{"polluted":1}},"clientId":"c1","action":"a"}'),
      400,
      'INVALID_INPUT',
    ],
    [
      'constructor.prototype in the payload is data',
      json('{"clientId":"nobody","action":"a","payload":{"constructor":{"prototype":{"polluted":1}}}}'),
      404,
      'NOT_FOUND',
    ],
    ['of equal keys the last one counts', json('{"clientId":"c1","clientId":"nobody","action":"a"}'), 404, 'NOT_FOUND'],
    ['U+0000', json('{"clientId":"c1","action":"a","payload":"\\u0000"}'), 400, 'INVALID_INPUT'],
    ['not UTF-8', [head(LINE, 'Content-Length: 4'), Buffer.from([0x22, 0xff, 0xfe, 0x22])], 400, 'INVALID_INPUT'],
    ['overlong UTF-8', [head(LINE, 'Content-Length: 4'), Buffer.from([0x22, 0xc0, 0xaf, 0x22])], 400, 'INVALID_INPUT'],
    [
      'a UTF-8 surrogate',
      [head(LINE, 'Content-Length: 5'), Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22])],
      400,
      'INVALID_INPUT',
    ],
    [
      'UTF-16',
      [head(LINE, `Content-Length: ${2 * COMMAND.length}`), Buffer.from(COMMAND, 'utf16le')],
      400,
      'INVALID_INPUT',
    ],
    ['a bomb', [json(bomb)], 413, 'PAYLOAD_TOO_LARGE'],
    ['a bomb that is only announced', head(LINE, 'Content-Length: 9000000000'), 413, 'PAYLOAD_TOO_LARGE'],
    [
      'a bomb in chunks',
      [head(LINE, 'Transfer-Encoding: chunked'), ...Array(12).fill(`186a0\r\n${' '.repeat(100_000)}\r\n`), '0\r\n\r\n'],
      413,
      'PAYLOAD_TOO_LARGE',
    ],
    [
      'a bomb of tiny chunks',
      [head(LINE, 'Transfer-Encoding: chunked'), '1\r\n \r\n'.repeat(1_060_000), '0\r\n\r\n'],
      413,
      'PAYLOAD_TOO_LARGE',
    ],
    [
      'chunk extensions',
      [head(LINE, 'Transfer-Encoding: chunked'), `1;${'x'.repeat(20_000)}\r\n \r\n0\r\n\r\n`],
      413,
      'PAYLOAD_TOO_LARGE',
    ],
    [
      'chunks without an announced length',
      [head(LINE, 'Transfer-Encoding: chunked'), `${COMMAND.length.toString(16)}\r\n${COMMAND}\r\n0\r\n\r\n`],
      404,
      'NOT_FOUND',
    ],
    [
      'chunks with trailers',
      [
        head(LINE, 'Transfer-Encoding: chunked'),
        `${COMMAND.length.toString(16)}\r\n${COMMAND}\r\n0\r\nAuthorization: none\r\n\r\n`,
      ],
      404,
      'NOT_FOUND',
    ],
    ['no body where one is needed', head(LINE), 400, 'INVALID_INPUT'],
    [
      'a body that is not read by a route without one',
      [head('GET /api/nothing HTTP/1.1', LENGTH), COMMAND],
      404,
      'NOT_FOUND',
    ],
  ])

  const codings = [
    'gzip',
    'x-gzip',
    'deflate',
    'br',
    'zstd',
    'compress',
    'GZIP',
    'gzip, gzip',
    'identity, gzip',
    'bogus',
    '*',
    'gzip;q=1',
  ]
  refuses(
    codings.map(
      (coding): Case => [
        `Content-Encoding: ${coding}`,
        post('/api/commands', COMMAND, `Content-Encoding: ${coding}`),
        415,
        'UNSUPPORTED_MEDIA_TYPE',
      ],
    ),
  )

  const types = [
    'text/plain',
    'text/html',
    'application/xml',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'application/octet-stream',
    'image/png',
    '',
    ';',
    'x',
    'a/b/c',
    'application/json; charset=x',
    `application/${'x'.repeat(5000)}`,
  ]
  refuses(
    types.map(
      (type): Case => [
        `Content-Type: ${type.slice(0, 40)} changes nothing`,
        post('/api/commands', COMMAND, `Content-Type: ${type}`),
        404,
        'NOT_FOUND',
      ],
    ),
  )
  refuses(
    types.map(
      (type): Case => [
        `Content-Type: ${type.slice(0, 40)} with what is no JSON`,
        post('/api/commands', 'a=b', `Content-Type: ${type}`),
        400,
        'INVALID_INPUT',
      ],
    ),
  )
})

describe('a body is not asked for before the caller is known', () => {
  const EXPECT = 'Expect: 100-continue'
  const statuses = async (request: string, rest = ''): Promise<{ statuses: number[]; closed: boolean }> => {
    const { answers, closed } = await exchange(server, [request, rest].filter(Boolean), rest === '' ? 2 : 1)
    return { statuses: answers.map(({ status }) => status), closed }
  }
  const stranger = (...headers: string[]): string => crlf(LINE, 'Host: x', ...headers, '', '')

  test('who may send is told to go on, and then answered', async () => {
    expect(await statuses(head(LINE, EXPECT, LENGTH), COMMAND)).toEqual({ statuses: [100, 404], closed: false })
  })
  test.each([
    ['a stranger', stranger(EXPECT, LENGTH), 401],
    ['a wrong token', stranger(EXPECT, LENGTH, 'Authorization: Bearer sbt_wrong'), 401],
    ['too much', head(LINE, EXPECT, 'Content-Length: 9000000'), 413],
    ['a compressed body', head(LINE, EXPECT, LENGTH, 'Content-Encoding: gzip'), 415],
    ['a route that takes none', head('GET /api/clients HTTP/1.1', EXPECT, LENGTH), 200],
    ['no route', head('POST /api/nothing HTTP/1.1', EXPECT, LENGTH), 404],
  ])('%s is answered at once, and the connection ends', async (_name, request, status) => {
    expect(await statuses(request)).toEqual({ statuses: [status], closed: true })
  })
  test('another expectation is ignored', async () => {
    expect(await statuses(head(LINE, 'Expect: miracles', LENGTH), COMMAND)).toEqual({ statuses: [404], closed: false })
  })
  test.each([
    ['broken JSON', `${stranger('Content-Length: 1')}{`],
    ['a bomb that is only announced', stranger('Content-Length: 9000000000')],
    ['a compressed bomb', stranger('Content-Encoding: gzip', 'Content-Length: 9000000000')],
    ['chunks that do not end', `${stranger('Transfer-Encoding: chunked')}5\r\nabc`],
    ['a length that is never sent', stranger('Content-Length: 100')],
  ])('a stranger with %s is told 401, not what is wrong with it', async (_name, request) => {
    const { answers } = await exchange(server, [request])
    expect(answers.map(({ status }) => status)).toEqual([401])
    expect(answers[0] && faultsOf(answers[0])).toEqual([])
  })
  test('what a login may say is small', async () => {
    const body = JSON.stringify({ token: `sbt_${'x'.repeat(5000)}` })
    const { answers } = await exchange(server, [
      crlf('POST /api/session HTTP/1.1', 'Host: x', `Content-Length: ${body.length}`, '', body),
    ])
    expect(answers.map(({ status }) => status)).toEqual([413])
  })
})

describe('who asks', () => {
  const as = (authorization: string): string => crlf('GET /api/clients HTTP/1.1', 'Host: x', authorization, '', '')
  const nobody = [
    'Authorization:',
    'Authorization: Bearer',
    'Authorization: Bearer ',
    `Authorization: Basic ${Buffer.from(`admin:${ADMIN_TOKEN}`).toString('base64')}`,
    'Authorization: Digest username="admin"',
    `Authorization: ${ADMIN_TOKEN}`,
    'Authorization: Bearer null',
    "Authorization: Bearer ' or 1=1 --",
    'Authorization: Bearer sbt_',
    `Authorization: Bearer sbt_${'x'.repeat(43)}`,
    'Authorization: Bearer sbt_%00',
    'Authorization: Bearer sbs_x',
    'Authorization: Bearer eyJhbGciOiJub25lIn0.e30.',
    `Cookie: token=${ADMIN_TOKEN}`,
    `Cookie: signalbox=${ADMIN_TOKEN}`,
    'Cookie: signalbox=sbs_',
    `Cookie: signalbox=sbs_${'x'.repeat(43)}`,
    `Cookie: __Host-signalbox=sbs_${'x'.repeat(43)}`,
    'Cookie: signalbox=sbs_x; signalbox=sbs_y',
    'Cookie: ;;;===',
    `X-Api-Key: ${ADMIN_TOKEN}`,
    'X-Forwarded-For: 127.0.0.1',
    'X-Forwarded-User: admin',
    'X-Original-URL: /health',
    `Proxy-Authorization: Bearer ${ADMIN_TOKEN}`,
  ]
  refuses(
    nobody.map(
      (authorization): Case => [authorization.replace(ADMIN_TOKEN, 'TOKEN'), as(authorization), 401, 'UNAUTHORIZED'],
    ),
  )
  refuses([
    [
      'a token in the query',
      crlf(`GET /api/clients?token=${ADMIN_TOKEN}&access_token=${ADMIN_TOKEN} HTTP/1.1`, 'Host: x', '', ''),
      401,
      'UNAUTHORIZED',
    ],
    ['a token in the path', crlf(`GET /api/${ADMIN_TOKEN} HTTP/1.1`, 'Host: x', '', ''), 404, 'NOT_FOUND'],
  ])
})

test('after all of this nothing was an error of the server, and no log line has a secret', () => {
  expect(server.logs.filter((line) => (line.level as number) >= 50)).toEqual([])
  expect(JSON.stringify(server.logs)).not.toMatch(/sb[kst]_[A-Za-z0-9]/)
})
