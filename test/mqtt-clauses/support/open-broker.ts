import type { Assembly } from '../../../broker/assembly.ts'
import { createOpenBroker } from '../../../broker/open/open-broker.ts'
import { parseSettings } from '../../../schemas/settings.ts'
import { silent } from '../../support/silent-log.ts'

/** The open broker in this process, on a free port. */
export async function startOpenBroker(
  settings: Record<string, unknown> = {},
): Promise<{ broker: Assembly; port: number }> {
  const broker = await createOpenBroker({
    settings: parseSettings({ MQTT_PORT: 0, MQTT_WS_PORT: 0, ...settings }),
    log: silent,
  })
  const { mqtt } = await broker.listen()
  return { broker, port: mqtt }
}
