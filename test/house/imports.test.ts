import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { expect, test } from 'vitest'

/** Which rooms a room may import from, itself aside. `app.ts` may import every room. */
const ALLOWED: Record<string, string[]> = {
  schemas: [],
  db: ['schemas'],
  control: ['schemas', 'db'],
  broker: ['schemas', 'control'],
  api: ['schemas', 'control'],
  agent: ['schemas'],
  cli: ['app.ts', 'agent', 'schemas'],
  // It starts the product as its users do, and knows of it only the language, PostgreSQL and how long an agent waits.
  bench: ['schemas', 'db', 'agent'],
}

/** Packages that belong to one room: the way out to PostgreSQL, MQTT, HTTP and the environment goes through it. */
const OWNED: Record<string, string[]> = {
  zod: ['schemas', 'control', 'api', 'agent', 'cli'],
  kysely: ['db', 'app.ts'],
  pg: ['db', 'bench'],
  koa: ['api', 'bench'],
  ioredis: ['db', 'bench'],
  'prom-client': ['api'],
  aedes: ['broker', 'bench'],
  'rate-limiter-flexible': ['control'],
  ws: ['broker'],
  mqtt: ['agent'],
  commander: ['cli'],
  uqr: ['cli'],
  'mqtt-packet': ['bench'],
  undici: ['bench'],
  bullmq: ['bench'],
  'pg-boss': ['bench'],
}

const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '*.ts'], {
  encoding: 'utf8',
})
  .trim()
  .split('\n')
  .filter((file) => !file.startsWith('test/'))

const imports = files.flatMap((file) =>
  [...readFileSync(file, 'utf8').matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map((match) => ({
    file,
    from: match[1] as string,
  })),
)

const roomOf = (path: string): string => path.split('/')[0] as string

test('a room imports only the rooms below it', () => {
  const wrong = imports
    .filter(({ from }) => from.startsWith('.'))
    .map(({ file, from }) => ({ file, room: roomOf(file), target: roomOf(normalize(join(dirname(file), from))) }))
    .filter(({ room, target }) => room in ALLOWED && room !== target && !ALLOWED[room]?.includes(target))
    .map(({ file, target }) => `${file} imports ${target}`)
  expect(wrong).toEqual([])
})

test('each outside door has one room', () => {
  const wrong = imports
    .filter(({ file, from }) => from in OWNED && !OWNED[from]?.includes(roomOf(file)))
    .map(({ file, from }) => `${file} imports ${from}`)
  expect(wrong).toEqual([])
})

test('schemas import nothing but zod', () => {
  const wrong = imports.filter(
    ({ file, from }) => roomOf(file) === 'schemas' && !from.startsWith('.') && from !== 'zod',
  )
  expect(wrong).toEqual([])
})

test('the environment is read in one file', () => {
  const readers = files.filter((file) => /process\.env/.test(readFileSync(file, 'utf8')))
  expect(readers).toEqual(['cli/settings.ts'])
})

test('there are no barrels and no default exports', () => {
  const wrong = files.filter(
    (file) => /^export (\*|default)/m.test(readFileSync(file, 'utf8')) && file !== 'vitest.config.ts',
  )
  expect(wrong).toEqual([])
})
