import { randomUUID } from 'node:crypto'
import { open, rm } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join, resolve } from 'node:path'
import type { Command } from 'commander'
import type { ListedPrincipal } from '../../schemas/principals.ts'
import { type Api, readList } from '../api-client.ts'
import { onApi } from '../api-command.ts'
import { UsageError } from '../failures.ts'
import { bridgeBlock, bridgeFault } from './bridge-block.ts'

interface BridgeOptions {
  mqtt: string
  name: string
  principal: string
  root: string
  directory: string
  ca?: string
}

/** `signalbox tokens bridge`: what mosquitto.conf includes. */
export function addBridge(tokens: Command): void {
  onApi<BridgeOptions>(
    tokens
      .command('bridge')
      .description("writes the connection of the technicians' Mosquitto, with a token of its own in it")
      .option('--mqtt <url>', 'where Mosquitto finds the server: mqtt:// or mqtts://', 'mqtt://127.0.0.1:1883')
      .option('--name <name>', 'of the connection and of the file', 'signalbox')
      .option('--principal <name>', 'a technician or viewer whose token it is; made if there is none', 'mosquitto')
      .option('--root <topicRoot>', 'prefix of every topic', 'signalbox/v1')
      .option('--directory <folder>', 'where the file goes', 'mosquitto.d')
      .option('--ca <file>', 'with mqtts: the authority that signed the certificate (default: those of the machine)'),
    async ({ api, out }, options) => {
      const { name, principal, root } = options
      const fault = bridgeFault(options)
      if (fault) throw new UsageError(fault)
      const file = resolve(join(options.directory, `${name}.conf`))
      // Before there is a token, so that none is left over that nobody has.
      const target = await open(file, 'wx', 0o600).catch((error: NodeJS.ErrnoException) => {
        throw new UsageError(whyNot(file, error))
      })
      try {
        const login = { principal, token: await tokenOf(api, principal, `bridge ${name} on ${hostname()}`) }
        const id = `${hostname()}~${randomUUID()}`
        const ca = options.ca === undefined ? undefined : resolve(options.ca)
        await target.writeFile(bridgeBlock({ name, mqtt: new URL(options.mqtt), root, ca, login, id }))
      } catch (error) {
        await rm(file)
        throw error
      } finally {
        await target.close()
      }
      out.show({ file, name, principal }, () => `${file} is written; start Mosquitto, or start it again`)
    },
  )
}

function whyNot(file: string, { code, message }: NodeJS.ErrnoException): string {
  if (code !== 'EEXIST') return `${file} cannot be written: ${message}`
  return `${file} is there already: remove it, and revoke its token (signalbox tokens list, tokens revoke)`
}

/** Reading is all that a bridge needs: what it holds lies in a file. */
const MAY_BRIDGE: readonly string[] = ['technician', 'viewer']

async function tokenOf(api: Api, name: string, purpose: string): Promise<string> {
  const { items } = await readList<ListedPrincipal>(api, '/principals', {}, 1_000_000)
  const known = items.find((one) => one.name === name)
  if (!known) return (await api<{ token: string }>('POST', '/principals', { name, role: 'technician' })).token
  if (!MAY_BRIDGE.includes(known.role)) {
    throw new UsageError(`principal ${name} is ${known.role}: a bridge gets the token of a technician or a viewer`)
  }
  return (await api<{ token: string }>('POST', '/tokens', { principalId: known.id, name: purpose })).token
}
