import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as wait } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { createApp } from '../app.ts'
import type { Command } from '../schemas/commands.ts'
import type { Event } from '../schemas/events.ts'
import { type Api, connectApi } from './api-client.ts'
import { settingsFromEnvironment } from './settings.ts'

const CLIENT_ID = 'printer-1'
const COPIES = 3
const LIMIT_SECONDS = 20

/**
 * The main job, end to end, on free ports and a database of its own in DATA_DIR/demo. Exit code 0 only if the ledger and the
 * device's journal tell the same story; 1 otherwise.
 */
export async function demo(): Promise<void> {
  const { DATA_DIR } = settingsFromEnvironment()
  const directory = join(resolve(DATA_DIR), 'demo')
  rmSync(directory, { recursive: true, force: true })
  mkdirSync(directory, { recursive: true })
  const app = createApp(
    settingsFromEnvironment({
      DATABASE_URL: undefined,
      ADMIN_TOKEN: undefined,
      DATA_DIR: directory,
      HTTP_PORT: 0,
      MQTT_PORT: 0,
      MQTT_WS_PORT: 0,
      LOG_LEVEL: 'warn',
    }),
  )
  const start = performance.now()
  const say = (line: string): void =>
    console.log(`${((performance.now() - start) / 1000).toFixed(3).padStart(7)} s  ${line}`)
  let device: ChildProcess | undefined
  try {
    const addresses = await app.start()
    say(`server: ${addresses.http}/api, ${addresses.mqtt}, PostgreSQL inside`)
    const api = connectApi({ url: addresses.http, token: addresses.newAdminToken })
    const { clientKey } = await api<{ clientKey: string }>('POST', '/clients', { id: CLIENT_ID, zones: ['A'] })
    device = startDevice(addresses.mqtt, directory, clientKey)
    say(`device: ${CLIENT_ID}, process ${device.pid}, its key shown once and stored as a hash`)
    await isOnline(api)
    say(`device: ${CLIENT_ID} is online`)
    const sent = await api<Command>('POST', '/commands', {
      clientId: CLIENT_ID,
      action: 'print',
      payload: { document: 'labels.pdf', copies: COPIES },
    })
    say(`POST /api/commands: 201, command ${sent.id}`)
    const command = await follow(api, sent.id, say)
    device.kill('SIGTERM')
    await once(device, 'exit')
    const faults = compare(command, directory)
    if (faults.length === 0) say(`ledger and journal agree: ${command.status}, ${COPIES} pages, each printed once`)
    for (const fault of faults) say(`NOT TRUE: ${fault}`)
    process.exitCode = faults.length === 0 ? 0 : 1
  } catch (error) {
    console.error(`signalbox demo: ${(error as Error).message}`)
    process.exitCode = 1
  } finally {
    device?.kill('SIGKILL')
    await app.stop()
  }
}

function startDevice(url: string, directory: string, clientKey: string): ChildProcess {
  const program = fileURLToPath(new URL('./demo-device.ts', import.meta.url))
  const device = spawn(process.execPath, [program, url, CLIENT_ID, directory], {
    stdio: ['pipe', 'inherit', 'inherit'],
  })
  device.stdin?.end(clientKey)
  return device
}

async function isOnline(api: Api): Promise<void> {
  await until(
    async () => (await api<{ presence: string }>('GET', `/clients/${CLIENT_ID}`)).presence === 'online',
    'the device did not come online',
  )
}

/** Prints the command's life as it happens, until it is settled. */
async function follow(api: Api, id: string, say: (line: string) => void): Promise<Command> {
  let cursor = ''
  let command: Command | undefined
  await until(async () => {
    command = await api<Command>('GET', `/commands/${id}`)
    const { items } = await api<{ items: Event[] }>(
      'GET',
      `/commands/${id}/timeline?limit=200${cursor && `&cursor=${cursor}`}`,
    )
    for (const event of items) say(`  ${event.type.padEnd(24)} ${describe(event)}`)
    const last = items.at(-1)
    if (last) cursor = Buffer.from(last.id).toString('base64url')
    return command.completedAt !== undefined && items.length === 0
  }, 'the command was not settled')
  return command as Command
}

function describe(event: Event): string {
  const data = Object.keys(event.data).length > 0 ? JSON.stringify(event.data) : ''
  return event.attempt === undefined ? data : `attempt ${event.attempt} ${data}`
}

/** What the server's ledger and the device's own records do not agree on. */
function compare(command: Command, directory: string): string[] {
  const journal = new DatabaseSync(join(directory, `${CLIENT_ID}.sqlite`), { readOnly: true })
  const entries = journal
    .prepare('select attempt, state, reported, result from attempts where command_id = ?')
    .all(command.id)
  journal.close()
  const pages = readFileSync(join(directory, `${CLIENT_ID}.paper`), 'utf8')
    .trim()
    .split('\n')
  const [entry] = entries
  const checks: [boolean, string][] = [
    [command.status === 'completed', `the ledger says ${command.status}`],
    [entries.length === 1, `the journal has ${entries.length} attempts`],
    [entry?.state === command.status, `the journal says ${entry?.state}, the ledger ${command.status}`],
    [entry?.attempt === command.attempt, `the journal says attempt ${entry?.attempt}, the ledger ${command.attempt}`],
    [entry?.reported === 1, 'the journal says that the outcome was not acknowledged'],
    [
      entry?.result === JSON.stringify(command.result),
      `the journal says ${entry?.result}, the ledger ${JSON.stringify(command.result)}`,
    ],
    [
      pages.length === COPIES && new Set(pages).size === COPIES,
      `the paper shows ${pages.length} pages, ${new Set(pages).size} different`,
    ],
  ]
  return checks.filter(([holds]) => !holds).map(([, fault]) => fault)
}

async function until(probe: () => Promise<boolean>, otherwise: string): Promise<void> {
  const deadline = performance.now() + LIMIT_SECONDS * 1000
  while (!(await probe())) {
    if (performance.now() > deadline) throw new Error(`${otherwise} within ${LIMIT_SECONDS} s`)
    await wait(25)
  }
}
