import { expect, test } from 'vitest'
import { flameGraph } from '../../bench/flame-graph.ts'
import { type CpuProfile, readProfile } from '../../bench/profile.ts'

const frame = (id: number, functionName: string, url: string, children: number[] = []) => ({
  id,
  callFrame: { functionName, url, lineNumber: 9 },
  children,
})

/** `outer` calls `inner` twice, by two nodes; the rest of the time is idle. */
const PROFILE: CpuProfile = {
  nodes: [
    frame(1, '(root)', '', [2, 5]),
    frame(2, 'outer', new URL('../../control/batcher.ts', import.meta.url).href, [3, 4]),
    frame(3, 'inner', 'file:///somewhere/node_modules/@koa/router/index.js'),
    frame(4, 'inner', 'file:///somewhere/node_modules/@koa/router/index.js'),
    frame(5, '(idle)', ''),
  ],
  samples: [2, 3, 5, 4],
  timeDeltas: [100, 200, 5000, 300],
}

test('calls are summed up by function, idle time left out', () => {
  const root = readProfile(PROFILE)
  expect(root.totalUs).toBe(600)
  const [outer] = root.children.values()
  expect(outer).toMatchObject({ name: 'outer control/batcher.ts:10', from: 'control', selfUs: 100, totalUs: 600 })
  const [inner, ...others] = outer?.children.values() ?? []
  expect(inner).toMatchObject({ name: 'inner @koa/router/index.js:10', from: '@koa/router', selfUs: 500, totalUs: 500 })
  expect(others).toEqual([])
})

test('a frame of the flame graph is as wide as its share', () => {
  const svg = flameGraph(readProfile(PROFILE), 'a < b')
  expect(svg).toContain('a &lt; b')
  const widths = Object.fromEntries(
    [...svg.matchAll(/<title>(\S+).*?<\/title><rect .*?width="([\d.]+)"/g)].map(([, name, width]) => [
      name,
      Number(width),
    ]),
  )
  expect(widths.all).toBe(1600)
  expect(widths.outer).toBe(1600)
  expect(widths.inner).toBeCloseTo((1600 * 5) / 6, 0)
})
