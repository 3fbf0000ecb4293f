import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { flameGraph } from './flame-graph.ts'

/** What V8 writes with --cpu-prof. Times are in µs. */
export interface CpuProfile {
  nodes: ProfileNode[]
  samples: number[]
  timeDeltas: number[]
}

interface ProfileNode {
  id: number
  callFrame: { functionName: string; url: string; lineNumber: number }
  children?: number[]
}

/** A function with what it called, by time on the CPU. */
export interface Frame {
  name: string
  /** The room or the package that it is from. */
  from: string
  selfUs: number
  totalUs: number
  children: Map<string, Frame>
}

const SHOWN = 25
const NO_WORK = new Set(['(idle)', '(program)'])

/** Draws a flame graph beside every profile of a directory, and answers where the time went in each, as text. */
export function summariseProfiles(directory: string): string {
  const files = readdirSync(directory).filter((file) => file.endsWith('.cpuprofile'))
  return files
    .map((file) => {
      const root = readProfile(JSON.parse(readFileSync(join(directory, file), 'utf8')))
      const name = file.replace(/\.cpuprofile$/, '')
      writeFileSync(join(directory, `${name}.svg`), flameGraph(root, name))
      return `${name}\n${busiest(root)}`
    })
    .join('\n\n')
}

/** The calls of a profile as one tree, idle time left out. */
export function readProfile({ nodes, samples, timeDeltas }: CpuProfile): Frame {
  const selfUs = new Map<number, number>()
  for (const [index, id] of samples.entries()) selfUs.set(id, (selfUs.get(id) ?? 0) + (timeDeltas[index] ?? 0))
  const byId = new Map(nodes.map((node) => [node.id, node]))
  const root: Frame = { name: 'all', from: '', selfUs: 0, totalUs: 0, children: new Map() }

  function add(node: ProfileNode, parent: Frame): void {
    const { functionName, url, lineNumber } = node.callFrame
    if (NO_WORK.has(functionName)) return
    const name = functionName === '(root)' ? '' : `${functionName || '(anonymous)'} ${placeOf(url, lineNumber)}`.trim()
    const frame = name === '' ? parent : childOf(parent, name, url)
    frame.selfUs += selfUs.get(node.id) ?? 0
    for (const child of node.children ?? []) add(byId.get(child) as ProfileNode, frame)
  }
  add(nodes[0] as ProfileNode, root)
  sumUp(root)
  return root
}

function childOf(parent: Frame, name: string, url: string): Frame {
  const known = parent.children.get(name)
  if (known) return known
  const made: Frame = { name, from: originOf(url, name), selfUs: 0, totalUs: 0, children: new Map() }
  parent.children.set(name, made)
  return made
}

function sumUp(frame: Frame): number {
  frame.totalUs = frame.selfUs
  for (const child of frame.children.values()) frame.totalUs += sumUp(child)
  return frame.totalUs
}

/** `koa`, `@koa/router`, `node`, or the first folder below the repository. */
function originOf(url: string, name: string): string {
  if (url === '') return name.startsWith('(garbage collector)') ? 'garbage collection' : 'V8'
  if (url.startsWith('node:')) return 'node'
  const inPackage = /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url)
  return inPackage?.[1] ?? /^\/([^/]+)\//.exec(pathBelowHere(url))?.[1] ?? 'app'
}

function placeOf(url: string, line: number): string {
  if (url === '') return ''
  const path = url.startsWith('node:') ? url : pathBelowHere(url).replace(/^.*node_modules\//, '')
  return `${path.replace(/^\//, '')}:${line + 1}`
}

const HERE = new URL('..', import.meta.url).href
const pathBelowHere = (url: string): string => (url.startsWith(HERE) ? `/${url.slice(HERE.length)}` : url)

/** Time of their own: by where they are from, and of the functions that took most. */
function busiest(root: Frame): string {
  const byOrigin = new Map<string, number>()
  const byName = new Map<string, number>()
  const add = (sums: Map<string, number>, key: string, us: number): void =>
    void sums.set(key, (sums.get(key) ?? 0) + us)
  const visit = (frame: Frame): void => {
    add(byOrigin, frame.from, frame.selfUs)
    add(byName, frame.name, frame.selfUs)
    for (const child of frame.children.values()) visit(child)
  }
  for (const child of root.children.values()) visit(child)
  const top = (sums: Map<string, number>): string[] =>
    [...sums]
      .toSorted(([, a], [, b]) => b - a)
      .slice(0, SHOWN)
      .filter(([, us]) => us > root.totalUs / 1000)
      .map(([name, us]) => `  ${((us / root.totalUs) * 100).toFixed(1).padStart(5)} %  ${name}`)
  return [`  ${(root.totalUs / 1e6).toFixed(1)} s on the CPU`, ...top(byOrigin), '', ...top(byName)].join('\n')
}
