import { setTimeout as wait } from 'node:timers/promises'
import type { CancelOutcome, Command, CreateCommand } from '../../schemas/commands.ts'
import type { Event } from '../../schemas/events.ts'
import type { Execution, Status } from '../../schemas/executions.ts'
import { type Api, path, readList } from '../api-client.ts'
import { followCommand } from '../follow-command.ts'
import { commandProgress } from '../progress.ts'
import type { Relay } from '../relay.ts'
import { countsText } from '../show-command.ts'
import { DEVICES, onlineIds, presenceOf } from './devices.ts'
import { type Say, until } from './story.ts'

/** A command of the demo, and what must have come of it on each of its clients. */
export interface Played {
  label: string
  command: Command
  clientIds: string[]
  outcome: Status
  /** Lines that it leaves in an effects file when it completes. */
  effects: number
}

export interface Stage {
  api: Api
  say: Say
}

const FOLLOW_SECONDS = 20
const CUT_MS = 2000

const inZone = (zone: string): string[] => DEVICES.filter((one) => one.zone === zone).map((one) => one.clientId)

/** How the demo's commands are checked and delivered. */
export async function registerActions({ api, say }: Stage): Promise<void> {
  const printSchema = { type: 'object', required: ['document', 'copies'] }
  await api('PUT', '/actions/print', { payloadSchema: printSchema, description: 'print a document' })
  await api('PUT', '/actions/lock', { delivery: 'at_least_once', description: 'lock the device' })
  await api('PUT', '/actions/message', { delivery: 'at_least_once', description: 'show a message' })
  say('actions: print (at most once), lock and message (at least once)')
}

/** To one client, its life event by event. */
export async function toOneClient({ api, say }: Stage): Promise<Played> {
  const clientId = 'a1'
  const copies = 3
  const sent = await send(api, { clientId, action: 'print', payload: { document: 'labels.pdf', copies } })
  say(`one client: print 3 copies on ${clientId}: POST /api/commands answered 201, ${sent.id}`)
  let told = 0
  const command = await until(async () => {
    const current = await read(api, sent.id)
    const { items } = await readList<Event>(api, path`/commands/${sent.id}/timeline`, {}, 200)
    for (const event of items.slice(told)) say(`  ${event.type.padEnd(22)} ${detailOf(event)}`.trimEnd())
    told = items.length
    return current.completedAt !== undefined ? current : undefined
  }, 'the command was not settled')
  return { label: `print on ${clientId}`, command, clientIds: [clientId], outcome: 'completed', effects: copies }
}

/** To a zone: one publish, two executions. */
export async function toZone(stage: Stage): Promise<Played> {
  const { command } = await sendAndFollow(stage, 'zone B: lock', { zone: 'B', action: 'lock' })
  return { label: 'lock in zone B', command, clientIds: inZone('B'), outcome: 'completed', effects: 1 }
}

export async function toEverybody(stage: Stage): Promise<Played> {
  const payload = { text: 'Shift ends in ten minutes' }
  const { command } = await sendAndFollow(stage, 'broadcast: message', { broadcast: true, action: 'message', payload })
  const clientIds = DEVICES.map((one) => one.clientId)
  return { label: 'message to everybody', command, clientIds, outcome: 'completed', effects: 1 }
}

/** Cancelled in the middle: the device says how it ended, the server does not guess. */
export async function cancelled({ api, say }: Stage): Promise<Played> {
  const clientId = 'a2'
  const copies = 60
  const sent = await send(api, { clientId, action: 'print', payload: { document: 'wrong.pdf', copies } })
  say(`cancel: print ${copies} copies on ${clientId}, by mistake: ${sent.id}`)
  const done = await until(async () => {
    const [execution] = (await executionsOf(api, sent.id)).items
    return execution?.status === 'running' && (execution.progress?.done ?? 0)
  }, 'the print did not start')
  const reason = { reason: 'wrong document' }
  const outcome = await api<CancelOutcome>('POST', path`/commands/${sent.id}/cancel`, reason)
  say(`  cancelled after copy ${done}: ${outcome.requested} execution is running, so its client is asked`)
  const command = await followCommand(api, sent, { seconds: FOLLOW_SECONDS, progress: commandProgress('  ') })
  say(`  ${countsText(command.counts)}, by the client's own word`)
  return { label: `wrong print on ${clientId}`, command, clientIds: [clientId], outcome: 'cancelled', effects: copies }
}

/** The zone's network fails while it works: the devices go on, and tell when they are back. */
export async function throughACut({ api, say }: Stage, relay: Relay): Promise<Played> {
  const zone = 'C'
  const copies = 4
  const sent = await send(api, { zone, action: 'print', payload: { document: 'shelves.pdf', copies } })
  say(`network failure: print ${copies} copies in zone ${zone}: ${sent.id}`)
  await until(async () => {
    const { items } = await executionsOf(api, sent.id)
    return items.every((one) => one.status === 'running' && (one.progress?.done ?? 0) > 0)
  }, 'the prints did not start')
  relay.cut()
  const [first] = inZone(zone) as [string]
  await until(async () => (await presenceOf(api, first)) === 'offline', 'the server did not notice the cut')
  say(`  connections of zone ${zone} cut in the middle of the job; the server sees them offline`)
  await wait(CUT_MS)
  say(`  after ${CUT_MS / 1000} s: ${countsText((await read(api, sent.id)).counts)}; network restored`)
  relay.restore()
  const command = await followCommand(api, sent, { seconds: FOLLOW_SECONDS, progress: commandProgress('  ') })
  await until(async () => (await onlineIds(api)).length === DEVICES.length, 'the devices did not come back')
  say(`  back online and reported: ${countsText(command.counts)}`)
  return {
    label: `print in zone ${zone}, network cut`,
    command,
    clientIds: inZone(zone),
    outcome: 'completed',
    effects: copies,
  }
}

async function sendAndFollow({ api, say }: Stage, label: string, body: CreateCommand): Promise<{ command: Command }> {
  const sent = await send(api, body)
  say(`${label}: ${sent.total} executions, one publish: ${sent.id}`)
  const command = await followCommand(api, sent, { seconds: FOLLOW_SECONDS, progress: commandProgress('  ') })
  say(`  ${countsText(command.counts)}`)
  return { command }
}

const send = (api: Api, body: CreateCommand): Promise<Command> => api<Command>('POST', '/commands', body)
const read = (api: Api, id: string): Promise<Command> => api<Command>('GET', path`/commands/${id}`)
export const executionsOf = (api: Api, id: string): Promise<{ items: Execution[] }> =>
  readList<Execution>(api, path`/commands/${id}/executions`, {}, 200)

function detailOf(event: Event): string {
  const data = Object.keys(event.data).length > 0 ? JSON.stringify(event.data) : ''
  return event.attempt === undefined ? data : `attempt ${event.attempt} ${data}`
}
