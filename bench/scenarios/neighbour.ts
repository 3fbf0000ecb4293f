import { REDIS } from '../peers/redis.ts'
import { cpuMicros } from '../processes.ts'
import { scenario } from '../scenario.ts'
import { type CreateSizes, measureCreate } from './create.ts'
import { startOurs } from './ours.ts'

/** Every command is for a client that is not connected to the node it was posted to: one hint, which the other node reads. */
export const neighbour = scenario<CreateSizes>({
  name: 'neighbour',
  measures: 'what a command costs the node that has nothing to do with it: it reads that there may be work',
  onRequest: true,
  sizes: {
    full: { rounds: 3, clients: 1000, connections: 64, warmSeconds: 2, seconds: 10 },
    quick: { rounds: 1, clients: 1000, connections: 64, warmSeconds: 1, seconds: 3 },
    smoke: { rounds: 1, clients: 10, connections: 4, warmSeconds: 0.2, seconds: 0.5 },
  },
  subjects: [
    {
      name: 'signalbox',
      needs: REDIS,
      async measure(stand, sizes) {
        await using ours = await startOurs(stand, sizes.clients, { nodes: 2, redis: true })
        const [own, other] = ours.nodes.map(({ pid }) => pid) as [number, number]
        const watched = { ...ours.watched, serverCpu: () => cpuMicros(own), neighbourCpu: () => cpuMicros(other) }
        return await measureCreate(ours, sizes, watched)
      },
    },
  ],
  bars: [],
})
