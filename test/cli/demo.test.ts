import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { until } from '../support/until.ts'
import { run, start } from './support/run.ts'

function directory(): string {
  const path = mkdtempSync(join(tmpdir(), 'signalbox-demo-'))
  onTestFinished(() => rmSync(path, { recursive: true, force: true }))
  return path
}

test('the demo proves every execution from the devices own records, through a cancel and a network failure', async () => {
  const DATA_DIR = directory()
  const { code, stdout, stderr } = await run(['demo'], { env: { DATA_DIR } })
  expect(stderr + stdout).not.toContain('\u001b')
  expect({ code, stderr, stdout }).toMatchObject({ code: 0 })
  const lines = [
    /export SIGNALBOX_URL=http:\/\/127\.0\.0\.1:\d+ SIGNALBOX_TOKEN=sbt_/,
    /mosquitto_sub -h 127\.0\.0\.1 -p \d+ -u admin -P sbt_\S+ -v -t 'signalbox\/v1\/#'/,
    /psql 'postgres:\/\//,
    /devices: 8 online/,
    /one client: .*201/,
    /execution\.completed +attempt 1 \{"result":\{"pages":3\}\}/,
    /zone B: lock: 2 executions, one publish/,
    /broadcast: message: 8 executions, one publish/,
    /cancelled 1, by the client's own word/,
    /connections of zone C cut/,
    /back online and reported: completed 2/,
    /ledger, journals and effects agree: 14 executions, 13 completed, 1 cancelled/,
  ]
  for (const line of lines) expect(stdout).toMatch(line)
  expect(stderr).toContain('8 of 8 settled: completed 8')
  // Each run has a directory of its own, where the devices' records stay.
  const [kept] = readdirSync(join(DATA_DIR, 'demo')) as [string]
  const files = readdirSync(join(DATA_DIR, 'demo', kept))
  expect(files).toContain('c1.sqlite')
  expect(files).not.toContain('postgres')
}, 90_000)

test('an interrupted demo takes its server and its devices along', async () => {
  const DATA_DIR = directory()
  const demo = start(['demo'], { env: { DATA_DIR } })
  await until(() => demo.output.stdout.includes('execution.running'), 'the first command runs', 45_000)
  const url = /SIGNALBOX_URL=(\S+)/.exec(demo.output.stdout)?.[1] as string
  demo.process.kill('SIGINT')
  expect(await demo.ended).toMatchObject({ code: 130 })
  await expect(fetch(`${url}/health/live`)).rejects.toThrow()
}, 90_000)
