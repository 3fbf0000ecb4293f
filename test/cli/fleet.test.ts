import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { expect, onTestFinished, test } from 'vitest'
import { startServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { cliFor, start } from './support/run.ts'

/** `FLEET=2000 npx vitest run test/cli/fleet.test.ts` for a large one. */
const FLEET = Number(process.env.FLEET ?? 80)
const MINUTES_MS = 4 * 60_000

test(
  `a broadcast to ${FLEET} devices, some away and all losing connections: every execution settles, nothing twice, by their journals`,
  async () => {
    const server = await startServer()
    const directory = mkdtempSync(join(tmpdir(), 'signalbox-fleet-'))
    onTestFinished(async () => {
      await server.stop()
      rmSync(directory, { recursive: true })
    })
    const cli = cliFor(server)
    const shaky = '--failures 0 --disconnects 2/min --offline 0.05 --think-ms 50..500 --seed 11'
    const fleet = start(
      [
        'simulate',
        '--clients',
        String(FLEET),
        '--zones',
        'A,B',
        ...shaky.split(' '),
        '--journal-dir',
        directory,
        '--url',
        server.mqtt,
        '--json',
      ],
      { env: cli.env },
    )
    const online = async () => {
      const { items } = (await server.api.get('/zones')).body
      return items.reduce((sum: number, zone: { online: number }) => sum + zone.online, 0)
    }
    await until(async () => (await online()) > FLEET * 0.9, 'most online', MINUTES_MS)
    const { body } = await server.api.post('/commands', { broadcast: true, action: 'lock' })
    expect(body.total).toBe(FLEET)
    await until(
      async () => (await server.api.get(`/commands/${body.id}`)).body.counts.completed === FLEET,
      'all completed',
      MINUTES_MS,
    )
    fleet.process.kill('SIGINT')
    const summary = JSON.parse((await fleet.ended).stdout)
    expect(summary).toMatchObject({ started: FLEET, completed: FLEET })
    expect(summary.disconnects).toBeGreaterThan(0)

    const journals = readdirSync(directory).filter((name) => name.endsWith('.sqlite'))
    const attempts = journals.flatMap((name) => {
      const journal = new DatabaseSync(join(directory, name), { readOnly: true })
      const found = journal.prepare('select command_id, attempt, state from attempts').all()
      journal.close()
      return found
    })
    expect(journals).toHaveLength(FLEET)
    // One row a device, so none was run twice.
    expect(attempts).toHaveLength(FLEET)
    expect(new Set(attempts.map((one) => `${one.command_id} ${one.attempt} ${one.state}`))).toEqual(
      new Set([`${body.id} 1 completed`]),
    )
  },
  2 * MINUTES_MS,
)
