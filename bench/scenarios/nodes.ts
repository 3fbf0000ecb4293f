import { REDIS } from '../peers/redis.ts'
import { type Bar, type BaseSizes, scenario } from '../scenario.ts'
import { LIFECYCLE, type LifecycleSizes, measureNewLifecycle } from './lifecycle.ts'

interface Sizes extends BaseSizes, LifecycleSizes {
  elsewhere: number
}

const ELSEWHERE = 0.75
const ONE = 'one node'
const ONE_WITH_REDIS = 'one node, Redis'

const beside = (figure: Bar['figure']): Bar[] =>
  [ONE, ONE_WITH_REDIS].map((subject) => ({ figure, against: { subject, by: 'ratio' } }))

export const nodes = scenario<Sizes>({
  name: 'nodes',
  measures:
    'the lifecycle at two nodes with one Redis, beside one node: with two cores for everything this shows what a second node costs, and no speed-up',
  sizes: {
    full: { ...LIFECYCLE.full, elsewhere: ELSEWHERE },
    quick: { ...LIFECYCLE.quick, elsewhere: ELSEWHERE },
    smoke: { ...LIFECYCLE.smoke, elsewhere: ELSEWHERE, warmSeconds: 0.1, seconds: 0.3 },
  },
  subjects: [
    {
      name: 'two nodes, Redis',
      needs: REDIS,
      measure: (stand, sizes) => measureNewLifecycle(stand, sizes, { nodes: 2, redis: true }),
    },
    {
      name: ONE_WITH_REDIS,
      needs: REDIS,
      measure: (stand, sizes) => measureNewLifecycle(stand, sizes, { redis: true }),
    },
    { name: ONE, measure: measureNewLifecycle },
  ],
  bars: [...beside('rate'), ...beside('serverCpu'), { figure: 'redisRoundTrips' }, { figure: 'redisMessages' }],
})
