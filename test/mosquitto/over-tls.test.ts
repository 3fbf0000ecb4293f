import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { own, register } from '../broker/support/scene.ts'
import { issueCertificate, tlsSettings } from '../support/certificate.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { hasTool } from '../support/tools.ts'
import { until } from '../support/until.ts'
import { createFolder, type Folder, lookOn, startMosquitto, untilBridge } from './support/technicians.ts'

// Each test starts processes; on a busy machine that takes its time.
vi.setConfig({ testTimeout: 90_000 })

const missing = [hasTool('mosquitto', 'mosquitto'), hasTool('openssl', 'openssl')].includes(false)

describe.skipIf(missing)('a bridge over TLS', () => {
  const certificates = mkdtempSync(join(tmpdir(), 'signalbox-bridge-tls-'))
  let server: TestServer
  let folder: Folder

  beforeAll(async () => {
    issueCertificate(certificates, 'server')
    server = await startServer(tlsSettings(certificates))
    folder = await createFolder()
  })
  afterAll(async () => {
    await server?.stop()
    folder?.remove()
    rmSync(certificates, { recursive: true })
  })

  test('asks for the certificate that it was given, and takes no other', async () => {
    await register(server, 'pda-7')
    // Mosquitto reads it as another user.
    const ca = join(folder.path, 'ca.crt')
    issueCertificate(folder.path, 'somebody else')
    const stranger = join(folder.path, 'server.crt')
    const bridge = (name: string, ...options: string[]) =>
      folder.writeBridge(server, '--name', name, '--mqtt', server.tls?.mqtts as string, ...options)
    cpSync(join(certificates, 'server.crt'), ca)

    expect(await bridge('stranger', '--ca', stranger)).toMatchObject({ code: 0 })
    const doubtful = await startMosquitto(folder)
    await until(() => /certificate verify failed/i.test(doubtful.log), 'a refusal of the certificate')
    await doubtful.stop()
    rmSync(join(folder.path, 'mosquitto.d/stranger.conf'))

    expect(await bridge('signalbox', '--ca', ca)).toMatchObject({ code: 0 })
    const mosquitto = await startMosquitto(folder)
    const tool = await lookOn(folder, 5)
    await untilBridge(tool, '1')
    await until(() => tool.last(own('pda-7', 'status')), 'status')
    await tool.client.endAsync()
    await mosquitto.stop()
  })
})
