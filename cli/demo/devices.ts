import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Client } from '../../schemas/clients.ts'
import { type Api, path, readList } from '../api-client.ts'
import { until } from './story.ts'

export const ZONES = ['A', 'B', 'C', 'D'] as const
type ZoneName = (typeof ZONES)[number]

export interface DemoDevice {
  clientId: string
  zone: ZoneName
}

/** Two in each zone. */
export const DEVICES: readonly DemoDevice[] = ZONES.flatMap((zone) =>
  [1, 2].map((number) => ({ clientId: `${zone.toLowerCase()}${number}`, zone })),
)

const PROGRAM = fileURLToPath(new URL('../demo-device.ts', import.meta.url))

/** A process for each device, which waits to be told its server and its key: they load while the server starts. */
export function spawnDevices(directory: string): Map<DemoDevice, ChildProcess> {
  return new Map(
    DEVICES.map((device) => {
      const stdio = ['pipe', 'inherit', 'inherit'] as const
      const child = spawn(process.execPath, [PROGRAM, device.clientId, directory], { stdio: [...stdio] })
      child.stdin?.on('error', () => undefined)
      return [device, child]
    }),
  )
}

/** Registers the devices and lets them connect; resolves when all are online and know their zones. */
export async function connectDevices(
  api: Api,
  processes: Map<DemoDevice, ChildProcess>,
  urlOf: (device: DemoDevice) => string,
): Promise<void> {
  for (const [device, child] of processes) {
    const { clientId, zone } = device
    const { clientKey } = await api<{ clientKey: string }>('POST', '/clients', { id: clientId, zones: [zone] })
    // Left open: its end tells the device that the demo is gone.
    child.stdin?.write(`${JSON.stringify({ url: urlOf(device), clientKey })}\n`)
  }
  await until(async () => (await onlineIds(api)).length === DEVICES.length, 'the devices did not come online')
}

export async function onlineIds(api: Api): Promise<string[]> {
  const { items } = await readList<Client>(api, '/clients', { presence: 'online' }, DEVICES.length)
  return items.filter(({ reported }) => reported?.journalId).map(({ id }) => id)
}

export const presenceOf = async (api: Api, clientId: string): Promise<Client['presence']> =>
  (await api<Client>('GET', path`/clients/${clientId}`)).presence
