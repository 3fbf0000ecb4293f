import { describe, expect, test } from 'vitest'
import { start } from '../cli/support/run.ts'
import { connectDevice } from '../support/device.ts'
import { httpClient } from '../support/http.ts'
import { learnSecret, learnSecrets, refuseSecrets } from '../support/secrets.ts'
import { ADMIN_TOKEN, startServer } from '../support/server.ts'
import { client, principal } from './support/principals.ts'

// Every server, agent and command of the suite is watched so: the end of each looks for all keys and tokens in what it wrote.
describe('a key or a token in a log is noticed', () => {
  const random = 'q'.repeat(21) + 'R'.repeat(22)

  test.each([
    ['whole', `sbk_${random}`],
    ['without its prefix', random],
    ['in the middle of a word', `x-${random}-y`],
    ['in a document', JSON.stringify({ a: [`Bearer sbk_${random}`] })],
    ['behind many lines', `${'line\n'.repeat(1000)}Authorization: sbk_${random}\n`],
  ])('%s', (_where, text) => {
    learnSecrets(`{"clientKey":"sbk_${random}"}`)
    expect(() => refuseSecrets(text, 'the log')).toThrow('the log has a key or a token in it')
    expect(() => refuseSecrets(text, 'the log')).not.toThrow(random)
  })

  test('and nothing else is taken for one', () => {
    learnSecret(`sbk_${random}`)
    refuseSecrets(`sbk_… ${random.slice(1)} 0198c0de-0000-7000-8000-000000000000 ${'x'.repeat(100)}`, 'the log')
  })

  test('of a server that writes what it is given: it does not stop without saying so', async () => {
    const server = await startServer({}, { careless: true })
    const key = await client(server, 'c1')
    expect((await connectDevice(server, { clientId: 'c1', username: key, password: key })).returnCode).toBe(4)
    await expect(server.stop()).rejects.toThrow("the server's log has a key or a token in it")
  })

  test('of a command that shows what it was given', async () => {
    await expect(start([ADMIN_TOKEN]).ended).rejects.toThrow('stderr of a command has a key or a token in it')
  })
})

test('the same mistakes leave no secret in the log of a server as it is', async () => {
  const server = await startServer()
  const key = await client(server, 'c1')
  const { name, token } = await principal(server, 'admin')
  for (const secret of [key, token, ADMIN_TOKEN]) {
    for (const clientId of ['c1', secret]) {
      for (const username of ['c1', name, secret]) {
        const device = await connectDevice(server, { clientId, username, password: secret })
        if (device.returnCode === 0) await device.end()
      }
    }
    const http = httpClient(server.http, secret)
    await http.get(`/clients/${secret}`)
    await http.get(`/clients?q=${secret}`)
    await http.post('/commands', { clientId: secret, action: secret })
    await http.post(`/clients/${secret}/ping`, { state: secret })
  }
  await server.stop()
  expect(server.logs.length).toBeGreaterThan(10)
})
