import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { own, register } from '../broker/support/scene.ts'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { connectDevice } from '../support/device.ts'
import { type ServerProcess, startServerProcess } from '../support/server-process.ts'
import { hasTool } from '../support/tools.ts'
import { until } from '../support/until.ts'
import {
  createFolder,
  type Folder,
  lookOn,
  type Mosquitto,
  startMosquitto,
  untilBridge,
} from './support/technicians.ts'

// Each test starts processes; on a busy machine that takes its time.
vi.setConfig({ testTimeout: 90_000 })

describe.skipIf(!hasTool('mosquitto', 'mosquitto'))('a bridge whose server is killed', () => {
  let database: TestDatabase
  let server: ServerProcess
  let folder: Folder
  let mosquitto: Mosquitto

  beforeAll(async () => {
    database = await createTestDatabase()
    server = await startServerProcess(database)
    folder = await createFolder()
    expect(await folder.writeBridge(server)).toMatchObject({ code: 0 })
    mosquitto = await startMosquitto(folder)
  })
  afterAll(async () => {
    await mosquitto?.stop()
    await server?.kill()
    await database?.drop()
    folder?.remove()
  })

  test('comes back by itself and shows what is so now: the new status, and nothing of what was deleted meanwhile', async () => {
    const { mqttPort } = server
    const keys: Record<string, string> = {}
    for (const id of ['stays', 'goes', 'again']) {
      keys[id] = await register(server, id)
      await connectDevice(server, { clientId: id, password: keys[id] })
    }
    const tool = await lookOn(folder, 5)
    const stateOf = (id: string, look = tool): unknown => {
      const payload = look.last(own(id, 'status'))?.payload
      return payload && JSON.parse(payload).state
    }
    for (const id of ['stays', 'goes', 'again']) await until(() => stateOf(id) === 'online', `${id} online`)

    await server.kill()
    await untilBridge(tool, '0')
    // Where the bridge does not look for it.
    server = await startServerProcess(database)
    for (const id of ['goes', 'again']) expect((await server.api.send('DELETE', `/clients/${id}`)).status).toBe(204)
    keys.again = await register(server, 'again', { zones: ['B'] })
    await server.kill()

    server = await startServerProcess(database, { settings: { MQTT_PORT: mqttPort } })
    await untilBridge(tool, '1')
    await until(() => stateOf('stays') === 'offline', 'the status after the restart')
    await until(() => tool.last(own('goes', 'status'))?.payload === '', 'the end of what was deleted')
    const device = await connectDevice(server, { clientId: 'again', password: keys.again })
    await until(() => stateOf('again') === 'online', 'a status that is new')

    const late = await lookOn(folder, 5)
    await until(() => stateOf('stays', late) === 'offline' && stateOf('again', late) === 'online', 'what is retained')
    expect(JSON.parse(late.last(own('again', 'config'))?.payload as string)).toMatchObject({ zones: ['B'] })
    expect(late.seen.filter(({ topic }) => topic.includes('goes'))).toEqual([])
    await device.end()
    for (const { client } of [tool, late]) await client.endAsync()
  })
})
