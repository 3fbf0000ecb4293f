import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ADMIN_TOKEN, startServer, type TestServer } from '../support/server.ts'
import { hasTool } from '../support/tools.ts'
import { until } from '../support/until.ts'

const run = promisify(execFile)
const ROOT = 'signalbox/v1'
const REPORTS = 100

describe.skipIf(!hasTool('mosquitto_sub', 'mosquitto-clients') || !hasTool('curl', 'curl'))(
  'curl and the mosquitto tools alone',
  () => {
    let server: TestServer
    let key: string
    let subscriber: ChildProcess
    const lines: string[] = []

    const curl = async (path: string, body?: unknown, ...more: string[]) => {
      const data = body === undefined ? [] : ['-d', JSON.stringify(body)]
      const { stdout } = await run('curl', [
        '-sS',
        '-H',
        `Authorization: Bearer ${ADMIN_TOKEN}`,
        ...data,
        ...more,
        `${server.http}/api${path}`,
      ])
      return JSON.parse(stdout)
    }
    const login = ['-h', '127.0.0.1', '-u', 'pda-7']
    const report = (id: string, body: unknown) =>
      run('mosquitto_pub', [
        ...login,
        '-p',
        String(server.mqttPort),
        '-P',
        key,
        '-i',
        'pda-7~pub',
        '-q',
        '1',
        '-t',
        `${ROOT}/clients/pda-7/commands/${id}/status`,
        '-m',
        JSON.stringify(body),
      ])

    beforeAll(async () => {
      server = await startServer()
      key = (await curl('/clients', { id: 'pda-7' })).clientKey
      subscriber = spawn('mosquitto_sub', [
        ...login,
        '-p',
        String(server.mqttPort),
        '-P',
        key,
        '-i',
        'pda-7',
        '-q',
        '1',
        '-t',
        `${ROOT}/clients/pda-7/commands`,
      ])
      subscriber.stdout?.on('data', (chunk: Buffer) => lines.push(...chunk.toString().trim().split('\n')))
    })
    afterAll(async () => {
      subscriber?.kill()
      await server.stop()
    })

    test('a command reaches mosquitto_sub, mosquitto_pub reports it, the subscriber stays connected for 100 reports', async () => {
      const { id } = await curl('/commands', { clientId: 'pda-7', action: 'pick', payload: { order: 'A-1' } })
      const received = JSON.parse(await until(() => lines[0], 'the command at mosquitto_sub'))
      expect(received).toMatchObject({ type: 'command', id, action: 'pick', payload: { order: 'A-1' } })
      await until(async () => (await curl(`/commands/${id}`)).status === 'delivered', 'delivered')
      for (let done = 1; done < REPORTS; done++)
        await report(id, { status: 'running', progress: { done, total: REPORTS } })
      await report(id, { status: 'completed', result: { picked: REPORTS } })
      expect(await curl(`/commands/${id}`)).toMatchObject({ status: 'completed', result: { picked: REPORTS } })
      const { items } = await curl(`/commands/${id}/timeline?limit=200`)
      const types = items.map((event: { type: string }) => event.type)
      expect(types.slice(0, 5)).toEqual([
        'command.created',
        'execution.queued',
        'execution.delivered',
        'execution.running',
        'execution.progress',
      ])
      expect(types.filter((type: string) => type === 'execution.progress')).toHaveLength(REPORTS - 2)
      expect(types.at(-1)).toBe('execution.completed')
      expect(subscriber.exitCode).toBeNull()
      expect(await curl('/clients/pda-7')).toMatchObject({ presence: 'online' })
    })

    test('?wait=10 answers with the result in one call', async () => {
      const seen = lines.length
      const waiting = curl('/commands?wait=10', { clientId: 'pda-7', action: 'pick' })
      const { id } = JSON.parse(await until(() => lines[seen], 'the second command'))
      await report(id, { status: 'completed', result: 'done' })
      expect(await waiting).toMatchObject({ id, status: 'completed', result: 'done' })
    })
  },
)
