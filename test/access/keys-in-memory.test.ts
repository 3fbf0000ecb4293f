import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { createTestDatabase } from '../support/database.ts'
import { connectDevice } from '../support/device.ts'
import { startServerProcess } from '../support/server-process.ts'
import { until } from '../support/until.ts'

const DEVICES = 10

test('what a device said at its login, its key among it, is not kept while it is connected', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'signalbox-heap-'))
  const database = await createTestDatabase()
  const server = await startServerProcess(database, {
    env: { NODE_OPTIONS: `--heapsnapshot-signal=SIGUSR2 --diagnostic-dir=${directory}` },
  })
  try {
    const keys: string[] = []
    for (let number = 0; number < DEVICES; number++) {
      const clientId = `device-${number}`
      const { body } = await server.api.post('/clients', { id: clientId })
      keys.push(body.clientKey)
      await connectDevice(server, { clientId, password: body.clientKey })
    }
    // The engine remembers the last text that a pattern was tried on.
    await connectDevice(server, { clientId: 'nobody', password: 'sbk_nothing' })
    server.process.kill('SIGUSR2')
    const snapshot = await until(async () => {
      const [file] = await readdir(directory)
      const text = file === undefined ? '' : await readFile(join(directory, file), 'utf8')
      return text.trimEnd().endsWith('}') ? text : undefined
    }, 'a snapshot of the memory')
    expect(snapshot).toContain('device-7')
    expect(keys.filter((key) => snapshot.includes(key))).toEqual([])
  } finally {
    await server.kill()
    await database.drop()
    await rm(directory, { recursive: true })
  }
})
