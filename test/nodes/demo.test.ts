import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { run } from '../cli/support/run.ts'
import { hasTool } from '../support/tools.ts'

const has = hasTool('redis-server', 'redis-server')

test.skipIf(!has)('the demo proves every execution on two nodes, too', { timeout: 90_000 }, async () => {
  const DATA_DIR = mkdtempSync(join(tmpdir(), 'signalbox-demo-'))
  onTestFinished(() => rmSync(DATA_DIR, { recursive: true, force: true }))
  const { code, stdout, stderr } = await run(['demo', '--nodes', '2'], { env: { DATA_DIR } })
  expect({ code, stderr, stdout }).toMatchObject({ code: 0 })
  expect(stdout).toMatch(/another node: http:\/\/127\.0\.0\.1:\d+\/api, mqtt:/)
  expect(stdout).toMatch(/8 online, .* spread over 2 nodes/)
  expect(stdout).toMatch(/ledger, journals and effects agree: 14 executions, 13 completed, 1 cancelled/)
})

test('without a redis-server it says what it needs', { timeout: 60_000 }, async () => {
  const DATA_DIR = mkdtempSync(join(tmpdir(), 'signalbox-demo-'))
  onTestFinished(() => rmSync(DATA_DIR, { recursive: true, force: true }))
  const { code, stderr } = await run(['demo', '--nodes', '2'], { env: { DATA_DIR, PATH: '/usr/bin/nowhere' } })
  expect(code).toBe(1)
  expect(stderr).toContain('apt-get install redis-server')
})
