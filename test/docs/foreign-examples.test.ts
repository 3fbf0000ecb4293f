import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { ClientConfig, ClientStatus } from '../../schemas/clients.ts'
import { ExecutionError, Progress } from '../../schemas/executions.ts'
import { CancelMessage, CommandMessage, ErrorReply, Report, ReportStatus } from '../../schemas/messages.ts'
import { parseTopic } from '../../schemas/topics.ts'
import { ROOT } from '../support/device.ts'

const read = (name: string): string => readFileSync(new URL(`../../docs/examples/${name}`, import.meta.url), 'utf8')

const FIELDS = new Set(
  [CommandMessage, CancelMessage, Report, ClientStatus, ClientConfig, ErrorReply, ExecutionError, Progress].flatMap(
    (schema) => Object.keys(schema.shape),
  ),
)
/** Of the payload and the result of the example's own action. */
const OWN = ['order', 'picked']

/** What a file says of the protocol, as far as it can be told without its compiler. */
const words = (source: string, ...patterns: RegExp[]): string[] =>
  patterns.flatMap((pattern) => [...source.matchAll(pattern)].map(([, word]) => word as string))

const topicsOf = (source: string): string[] =>
  words(source, /["'`](signalbox\/v1\/[^"'`\n]*)["'`]/g).map((topic) => topic.replace(/\$?\{[^}]*\}|%s/g, 'x'))

/** Those that no test runs: their compilers are not at hand. */
const UNRUN = ['csharp/Device.cs', 'csharp/HttpDevice.cs', 'cpp/device.cpp']

describe.for([...UNRUN, 'python/device.py', 'javascript/device.mjs'])('%s', (name) => {
  test('its topics are topics of a client', () => {
    const topics = topicsOf(read(name))
    const names = topics.map((topic) => {
      expect(parseTopic(ROOT, topic), topic).toBeDefined()
      return parseTopic(ROOT, topic)?.name
    })
    if (name === 'csharp/HttpDevice.cs') expect(topics).toEqual([])
    else
      expect(names).toEqual(
        expect.arrayContaining(['clientStatus', 'clientCommands', 'clientReplies', 'commandStatus']),
      )
  })
})

describe.for(UNRUN)('%s', (name) => {
  const source = read(name)

  test('its statuses are statuses of a report, each outcome among them', () => {
    const said = words(
      source,
      /\bstatus = "(\w+)"/g,
      /\["status"\] = "(\w+)"/g,
      /status = own \? "(\w+)"/g,
      /\bkeep\(.*\? "(\w+)" : "/g,
      /: "(outcome_unknown)"/g,
      /\bkeep\([^;]*?"(\w+)"\)/g,
      /\breport\([^;"]*"(\w+)"/g,
      /Failure\("(\w+)"/g,
    )
    for (const status of said) expect(ReportStatus.options).toContain(status)
    expect(said).toEqual(expect.arrayContaining(['completed', 'rejected', 'cancelled', 'outcome_unknown']))
    expect(source).toContain('running')
  })

  test('its fields are fields of the messages, and every report names its attempt', () => {
    const fields = words(
      source,
      /GetProperty\("(\w+)"/g,
      /\b(?:message|command|body)(?:\["\w+"\])*\["(\w+)"\]/g,
      /\bnew \{ (\w+) = /g,
      /, (\w+) = (?:"|new)/g,
    )
    for (const field of fields) expect([...FIELDS, ...OWN], field).toContain(field)
    expect(fields).toEqual(expect.arrayContaining(['id', 'attempt', 'type', 'action']))
    for (const [literal] of source.matchAll(/new \{ status = [^}]*\}/g)) expect(literal).toContain('attempt')
  })
})

test('whoever keeps a journal names it before it subscribes', () => {
  for (const name of ['csharp/Device.cs', 'javascript/device.mjs']) {
    const source = read(name)
    expect(source.indexOf('journalId = journal.Id') + source.indexOf('version: ')).toBeGreaterThan(0)
    const first =
      /[sS]ubscribe(?:Async)?\(\s*\[?\s*\$?["'`]signalbox\/v1\/clients\/[^"'`]*\/commands/.exec(source)?.index ?? 0
    expect(source.search(/ublish(?:Async)?\(\$?["'`]signalbox\/v1\/clients\/\$?\{clientId\}\/status/)).toBeLessThan(
      first,
    )
  }
  expect(read('cpp/device.cpp')).not.toContain('body["journalId"]')
  expect(read('csharp/HttpDevice.cs')).toContain('?journalId=')
})
