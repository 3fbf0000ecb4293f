// A Signalbox device with mqtt.js and a file for a journal: effectively once across lost connections, restarts and crashes.
//   npm install mqtt && SIGNALBOX_CLIENT_ID=pda-7 SIGNALBOX_CLIENT_KEY=sbk_... node device.mjs
// In a service of your own rather use agent/agent.ts of this repository: it does the same and more, with SQLite.
import { randomUUID } from 'node:crypto'
import { appendFileSync, existsSync, fsyncSync, openSync, readFileSync, truncateSync, writeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import mqtt from 'mqtt'

const { SIGNALBOX_CLIENT_ID: clientId, SIGNALBOX_CLIENT_KEY: clientKey, MQTT_HOST = '127.0.0.1' } = process.env
const { MQTT_PORT = '1883', SIGNALBOX_JOURNAL: journalFile = `${clientId}.journal` } = process.env

// ---- the work: (payload, cancelled: AbortSignal, progress) => result

const actions = {
  async pick(payload) {
    appendFileSync('picked.log', `${JSON.stringify(payload)}\n`)
    return { picked: 1 }
  },
  async wait({ seconds }, signal, progress) {
    if (!Number.isInteger(seconds)) throw new Error('seconds must be a number')
    for (let done = 1; done <= seconds; done++) {
      await sleep(1000, undefined, { signal })
      progress({ done, total: seconds })
    }
    return {}
  },
}

// ---- the journal: one line per step, on disk before anybody is told. One process per journal!

/** `id attempt` -> { id, attempt, state, report?, reported? }; states: accepted, started, waiting, superseded, settled */
const attempts = new Map()
const { journalId, file } = openJournal()

function openJournal() {
  const text = existsSync(journalFile) ? readFileSync(journalFile, 'utf8') : ''
  const whole = text.slice(0, text.lastIndexOf('\n') + 1) // a power cut may leave half a line: it was not acknowledged
  if (whole !== text) truncateSync(journalFile, Buffer.byteLength(whole))
  const lines = whole
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line))
  for (const entry of lines.slice(1)) attempts.set(`${entry.id} ${entry.attempt}`, entry)
  const opened = openSync(journalFile, 'a')
  // Names this memory: a new file is a new memory.
  const first = lines[0] ?? { journalId: randomUUID() }
  if (lines.length === 0) writeLine(opened, first)
  return { journalId: first.journalId, file: opened }
}

function writeLine(to, value) {
  writeSync(to, `${JSON.stringify(value)}\n`)
  fsyncSync(to)
}

function keep(entry) {
  writeLine(file, entry)
  attempts.set(`${entry.id} ${entry.attempt}`, entry)
}

const attemptsOf = (id) => [...attempts.values()].filter((entry) => entry.id === id)
const find = (id, attempt) => attempts.get(`${id} ${attempt}`)

/** The outcome: kept, then reported until its PUBACK. */
function settle(id, attempt, report) {
  keep({ id, attempt, state: 'settled', report: { ...report, attempt }, reported: false })
  sendOutcome(find(id, attempt))
}

/** Not started and never will be. Its report speaks for the id: what an older attempt did, or may have done, counts. */
function giveUp(id, attempt, report) {
  const older = attemptsOf(id).filter((entry) => entry.attempt < attempt)
  const decisive = ['completed', 'outcome_unknown'].map((status) =>
    older.find((entry) => entry.report?.status === status),
  )
  settle(id, attempt, (decisive[0] ?? decisive[1])?.report ?? report)
}

const unknown = (code, message) => ({ status: 'outcome_unknown', error: { code, message } })

/** Before anything new: what the last process left in the middle. */
function recover() {
  for (const { id, attempt, state } of [...attempts.values()].sort((a, b) => a.attempt - b.attempt)) {
    if (state === 'started' || state === 'waiting') settle(id, attempt, unknown('INTERRUPTED', 'ended in the middle'))
    // How long ago it was accepted, and so whether it has expired, cannot be known.
    if (state === 'accepted')
      giveUp(id, attempt, { status: 'failed', error: { code: 'DEVICE_RESTARTED', message: 'never started' } })
  }
}

// ---- what comes in

const ready = [] // { command, deadline }
let running // { id, attempt, abort: AbortController }

function takeCommand(command) {
  const { id, attempt } = command
  const known = find(id, attempt)
  if (known) return tellAgain(known) // sent again: never run again
  const others = attemptsOf(id)
  if (others.some((entry) => entry.attempt > attempt)) return keep({ id, attempt, state: 'superseded' })
  keep({ id, attempt, state: 'accepted' })
  for (const older of others) if (older.state === 'accepted') keep({ ...older, state: 'superseded' })
  // Seconds from the arrival, on our monotonic clock: nobody compares wall clocks.
  ready.push({ command, deadline: performance.now() + command.expiresInSeconds * 1000 })
  ready.sort((a, b) => b.command.priority - a.command.priority)
  void runAll()
}

function takeCancel({ id, attempt, journalId: asked }) {
  const known = find(id, attempt)
  const olderRuns = running?.id === id && running.attempt <= attempt
  if (olderRuns) running.abort.abort() // what it makes of that is its outcome
  if (known?.state === 'accepted' || (!known && asked === journalId)) {
    if (olderRuns) keep({ id, attempt, state: 'waiting' })
    else giveUp(id, attempt, { status: 'cancelled' })
  } else if (!known) settle(id, attempt, unknown('NOT_REMEMBERED', 'handed to another memory, or to none'))
  else tellAgain(known)
}

function tellAgain(entry) {
  if (entry.report && entry.reported) keep({ ...entry, reported: false })
  sendOutcome(find(entry.id, entry.attempt))
}

// ---- what is done: one after the other, so never two attempts of an id at the same time

async function runAll() {
  while (!running && ready.length > 0) {
    const { command, deadline } = ready.shift()
    const { id, attempt } = command
    if (find(id, attempt).state !== 'accepted') continue // cancelled or superseded meanwhile
    const done = attemptsOf(id).some((entry) => entry.report?.status === 'completed')
    if (done || performance.now() >= deadline) {
      giveUp(id, attempt, { status: 'expired' }) // done before: giveUp says so
      continue
    }
    keep({ id, attempt, state: 'started' }) // from here on a crash means outcome_unknown
    running = { id, attempt, abort: new AbortController() }
    const outcome = await perform(command, running.abort.signal)
    running = undefined
    settle(id, attempt, outcome)
    for (const entry of attemptsOf(id))
      if (entry.state === 'waiting') giveUp(id, entry.attempt, { status: 'cancelled' })
  }
}

async function perform({ id, attempt, action, payload }, signal) {
  report(id, { status: 'running', attempt })
  if (!Object.hasOwn(actions, action)) return { status: 'rejected', error: { code: 'UNKNOWN_ACTION', message: action } }
  try {
    const result = await actions[action](payload, signal, (progress) =>
      report(id, { status: 'running', attempt, progress }),
    )
    return { status: 'completed', result }
  } catch (error) {
    if (signal.aborted) return { status: 'cancelled' } // these actions do nothing before they wait
    return { status: 'failed', error: { code: error.code ?? 'ERROR', message: error.message } }
  }
}

// ---- what goes out

let client
let sent // outcomes under way on this connection, as `id attempt`

/** Progress that cannot be sent now is not worth keeping. */
function report(id, body) {
  if (client.connected) client.publish(reportTopic(id), JSON.stringify(body), { qos: 1 }, () => {})
}

const reportTopic = (id) => `signalbox/v1/clients/${clientId}/commands/${id}/status`

function sendOutcome(entry) {
  const key = `${entry?.id} ${entry?.attempt}`
  if (!entry?.report || entry.reported || !client.connected || sent.has(key)) return
  const here = sent.add(key)
  client.publish(reportTopic(entry.id), JSON.stringify(entry.report), { qos: 1 }, (error) => {
    here.delete(key)
    if (!error) keep({ ...entry, reported: true }) // PUBACK: the server has committed it
  })
}

/** One connection. The next one is a new client: what has to be sent again is for the journal to say, not for mqtt.js. */
function connect() {
  client = mqtt.connect(`mqtt://${MQTT_HOST}:${MQTT_PORT}`, {
    protocolVersion: 4, // 3.1.1: MQTT 5 is refused
    clientId,
    username: clientId,
    password: clientKey,
    clean: true,
    keepalive: 30,
    reconnectPeriod: 0,
  })
  sent = new Set()
  const current = client
  client.on('connect', () => {
    introduce(current).catch((error) => console.error(`not ready: ${error.message}`)) // a refused subscription, 128, too
  })
  // CONNACK 4: bad key, 5: disabled or a foreign client id, 3: the server's database is down.
  client.on('error', (error) => console.error(`connection: ${error.message}`))
  client.once('close', () => {
    current.end(true) // fails what waits for its PUBACK
    setTimeout(connect, 1000 + Math.random() * 1000)
  })
  // mqtt.js sends the PUBACK when the callback is called: after the journal. If that cannot be written, we end without.
  client.handleMessage = (packet, callback) => {
    try {
      take(packet.topic, JSON.parse(packet.payload.toString()))
    } catch (error) {
      console.error(error)
      process.exit(1)
    }
    callback()
  }
}

async function introduce(connection) {
  // The status first: the server must know the journal before it hands anything over.
  const status = JSON.stringify({ state: 'online', version: '1.0', journalId })
  await connection.publishAsync(`signalbox/v1/clients/${clientId}/status`, status, { qos: 1, retain: true })
  await connection.subscribeAsync(
    [
      `signalbox/v1/clients/${clientId}/commands`,
      'signalbox/v1/broadcast/commands',
      `signalbox/v1/clients/${clientId}/config`,
      `signalbox/v1/clients/${clientId}/replies`,
    ],
    { qos: 1 },
  )
  for (const entry of attempts.values()) sendOutcome(entry)
}

function take(topic, body) {
  if (topic.endsWith('/config')) {
    // A zone that we lost is unsubscribed by the server.
    for (const zone of body.zones) client.subscribe(`signalbox/v1/zones/${zone}/commands`, { qos: 1 })
  } else if (topic.endsWith('/replies')) console.error('the server could not use a message:', body)
  else if (body.type === 'command') takeCommand(body)
  else if (body.type === 'cancel') takeCancel(body)
}

connect()
recover()
