import { expect, test } from 'vitest'
import { createTurns } from '../../control/turns.ts'

const busyFor = (ms: number): void => {
  const until = performance.now() + ms
  while (performance.now() < until);
}

test('jobs keep their order, whether they run at once or wait, and what comes after them too', async () => {
  const turns = createTurns()
  const said: string[] = []
  const { promise, resolve } = Promise.withResolvers<void>()
  turns.run(() => said.push('one'))
  turns.after(() => said.push('after one'))
  turns.run(() => {
    said.push('two')
    // More than a turn.
    busyFor(10)
    turns.run(() => said.push('of two'))
  })
  turns.after(() => said.push('after two'))
  expect(turns.run(() => said.push('three'))).toBe(false)
  turns.after(resolve)
  await promise
  expect(said.filter((what) => !what.startsWith('after'))).toEqual(['one', 'two', 'three', 'of two'])
  expect(said.filter((what) => what.startsWith('after'))).toEqual(['after one', 'after two'])
  expect(said.indexOf('after two')).toBeGreaterThan(said.indexOf('two'))
})

test('many jobs let others in between', async () => {
  const turns = createTurns()
  let others = 0
  const other = setInterval(() => others++, 1)
  for (let index = 0; index < 100; index++) turns.run(() => busyFor(1))
  await new Promise<void>((resolve) => turns.after(resolve))
  clearInterval(other)
  expect(others).toBeGreaterThan(5)
})
