import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, onTestFinished, test } from 'vitest'
import { CancelMessage, CommandMessage, Report, ReportStatus } from '../../schemas/messages.ts'
import { parseTopic } from '../../schemas/topics.ts'
import { ROOT } from '../support/device.ts'
import { ADMIN_TOKEN, startServer } from '../support/server.ts'
import { hasTool } from '../support/tools.ts'

const page = readFileSync(new URL('../../docs/devices.md', import.meta.url), 'utf8')
/** For failures only: what was printed until then is shown. */
const LIMIT_MS = 20_000
const SEPARATOR = '@@ the next block'

/** The fenced blocks in order. */
const blocks = [...page.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map(([, language, text]) => ({
  language,
  text: text as string,
}))

/** A transcript as the page prints it, where `…` stands for anything within a line. */
function asPattern(expected: string): RegExp {
  return new RegExp(`^${expected.split('…').map(RegExp.escape).join('.*?')}$`)
}

/** One shell for all blocks, as for a reader with one terminal. */
async function runAll(scripts: string[], env: Record<string, string>): Promise<string[]> {
  const directory = mkdtempSync(join(tmpdir(), 'signalbox-devices-page-'))
  const shell = spawn('bash', ['-c', `set -eu\n${scripts.join(`\necho '${SEPARATOR}'\n`)}`], {
    cwd: directory,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  })
  const end = (): void => {
    try {
      process.kill(-(shell.pid as number), 'SIGKILL')
    } catch {
      // All of it has ended.
    }
  }
  onTestFinished(() => {
    end()
    rmSync(directory, { recursive: true, force: true })
  })
  let output = ''
  for (const stream of [shell.stdout, shell.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      output += chunk
    })
  }
  const tooLong = setTimeout(end, LIMIT_MS)
  const [code] = await once(shell, 'close')
  clearTimeout(tooLong)
  expect(code, output).toBe(0)
  return output.split(`${SEPARATOR}\n`)
}

describe.skipIf(!hasTool('mosquitto_sub', 'mosquitto-clients') || !hasTool('curl', 'curl'))('the page by hand', () => {
  test('every block of commands, in order, prints what the page says', async () => {
    const server = await startServer()
    onTestFinished(() => server.stop())
    const shell = blocks.filter(({ language }) => language === 'sh')
    const outputs = await runAll(
      shell.map(({ text }) => text),
      { TOKEN: ADMIN_TOKEN, SIGNALBOX: server.http, MQTT_PORT: String(server.mqttPort) },
    )
    expect(outputs).toHaveLength(shell.length)
    for (const [index, block] of shell.entries()) {
      const next = blocks[blocks.indexOf(block) + 1]
      const expected = next?.language === 'text' ? next.text : ''
      expect(outputs[index], block.text).toMatch(asPattern(expected))
    }
  })

  test('the log lines that the page names', async () => {
    const broker = fileURLToPath(new URL('../../broker', import.meta.url))
    const files = readdirSync(broker, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'))
    const source = files.map((name) => readFileSync(join(broker, name), 'utf8'))
    const sessions = readFileSync(new URL('../../control/sessions/sessions.ts', import.meta.url), 'utf8')
    const all = [...source, sessions].join('\n')
    const mistakes = page.slice(page.indexOf('## Mistakes'))
    const named = [...mistakes.matchAll(/^\|[^|]*\|[^|]*\|([^|]*)\|$/gm)]
      .flatMap(([, log]) => [...(log as string).matchAll(/`([^`]+)`/g)].map(([, text]) => text as string))
      .map((text) => text.replace(/^.*…:? ?/, '').replace(/pda-7|other|\bB$/g, '\u0000'))
      .flatMap((text) => text.split('\u0000'))
      .filter((text) => text.trim().length > 2 && !/^[A-Z_]+$/.test(text))
    expect(named.length).toBeGreaterThan(10)
    for (const text of named) expect(all).toContain(text)
  })
})

describe('what the page shows of the protocol', () => {
  test('its JSON is what the schemas say', () => {
    const schemas = { command: CommandMessage, cancel: CancelMessage }
    const shown = blocks.filter(({ language }) => language === 'json').map(({ text }) => JSON.parse(text))
    expect(shown.length).toBeGreaterThan(4)
    for (const body of shown) {
      const schema = schemas[body.type as keyof typeof schemas] ?? Report
      expect(Object.keys(schema.parse(body)).sort()).toEqual(Object.keys(body).sort())
    }
    for (const name of [...Object.keys(CommandMessage.shape), ...ReportStatus.options])
      expect(page).toContain(`\`${name}`)
  })

  test('its topics are those of the table', () => {
    const rows = [...page.matchAll(/^\| `([^`]+)` \| (subscribe|publish) \| (yes)? ?\|/gm)]
    expect(rows).toHaveLength(8)
    for (const [, topic, you, retained] of rows) {
      const spec = parseTopic(ROOT, `${ROOT}/${topic}`)?.spec
      expect(spec, topic).toMatchObject({
        direction: you === 'publish' ? 'from-client' : 'to-client',
        retain: retained === 'yes',
        qos: 1,
      })
    }
  })
})
