import type { Sizes } from './outage-scene.ts'
import type { Figures } from './scenario.ts'
import { fullDisk } from './scenarios/postgres.ts'

/** Runs the scenario of the full disk where it may mount one: in a namespace of its own. */
export interface FullDiskOrders {
  sizes: Sizes
  seed: number
}
export type FullDiskWord = { say: string } | { figures: Figures } | { failure: string }

const tell = (word: FullDiskWord): void => void process.send?.(word)

process.once('message', async ({ sizes, seed }: FullDiskOrders) => {
  await fullDisk(sizes, { seed, say: (say) => tell({ say }) }).then(
    (figures) => tell({ figures }),
    (error: Error) => tell({ failure: error.stack ?? error.message }),
  )
  process.disconnect()
})
