import { MUTATIONS, prove } from '../mutations.ts'
import { scenario, Violations } from '../scenario.ts'

export const oracleProved = scenario({
  name: 'oracle-proved',
  proves: 'With a mechanism taken out of a copy of the tree, the oracle or the test of that mechanism turns red.',
  sizes: { short: { mutations: MUTATIONS.length }, long: { mutations: MUTATIONS.length } },
  async run({ mutations }, { say }) {
    const missed: string[] = []
    for (const mutation of MUTATIONS.slice(0, mutations)) {
      const { noticed, output } = await prove(mutation)
      const line = output.split('\n').find((text) => mutation.proof.says.test(text))
      if (noticed) say(`${mutation.name}: noticed (${line?.trim().slice(0, 140)})`)
      else missed.push(`${mutation.name} was not noticed:\n${output.slice(-2000)}`)
    }
    if (missed.length > 0) throw new Violations(missed)
    return { noticed: mutations }
  },
})
