import type { Bounds } from './world.ts'

const BASE: Bounds = {
  delivery: 'at_most_once',
  client: 'memory',
  sessions: 2,
  nodes: 1,
  nodeCrashes: 1,
  clientCrashes: 1,
  wipes: 0,
  cancels: 0,
  words: 0,
  expiry: false,
  takenForDead: false,
  group: false,
  unnamed: false,
  backoff: false,
  maxRetries: 1,
}

const atMost = (bounds: Partial<Bounds>): Bounds => ({ ...BASE, ...bounds, delivery: 'at_most_once' })
const atLeast = (bounds: Partial<Bounds>): Bounds => ({ ...BASE, ...bounds, delivery: 'at_least_once' })
const journal = { client: 'journal' } as const
const noCrash = { nodeCrashes: 0, clientCrashes: 0 }
const nodeCrash = { clientCrashes: 0 }
const clientCrash = { nodeCrashes: 0 }

/** The node or the client crashes at most once each, between any two steps, where nothing else is said. */
export const CONFIGURATIONS: Record<string, Bounds> = {
  'at_most_once, journal, also lost': atMost({ ...journal, wipes: 1 }),
  'at_most_once, memory': atMost({}),
  'at_most_once, journal, also lost; cancel': atMost({ ...journal, wipes: 1, cancels: 1 }),
  'at_most_once, memory; cancel': atMost({ cancels: 1 }),
  'at_most_once, journal, also lost; expiry': atMost({ ...journal, wipes: 1, expiry: true }),
  'at_most_once, memory; expiry': atMost({ expiry: true }),
  'at_most_once, memory; retry or resolve, cancel': atMost({ words: 1, cancels: 1 }),
  'at_most_once, journal, no crash; retry or resolve': atMost({ ...journal, ...noCrash, words: 1 }),
  'at_most_once, memory; two nodes, one taken for dead': atMost({ nodes: 2, takenForDead: true }),
  'at_most_once, memory; three sessions': atMost({ sessions: 3 }),
  'at_most_once, journal, node crash; two nodes, cancel': atMost({ ...journal, ...nodeCrash, nodes: 2, cancels: 1 }),
  'at_most_once, journal, also lost, no node crash; two nodes, one taken for dead': atMost({
    ...journal,
    ...clientCrash,
    wipes: 1,
    nodes: 2,
    takenForDead: true,
  }),
  'at_least_once, memory': atLeast({}),
  'at_least_once, memory, client crash; cancel': atLeast({ ...clientCrash, cancels: 1 }),
  'at_least_once, memory, client crash; expiry': atLeast({ ...clientCrash, expiry: true }),
  'at_least_once, journal, no crash; cancel': atLeast({ ...journal, ...noCrash, cancels: 1 }),
  'at_least_once, journal, no crash; expiry': atLeast({ ...journal, ...noCrash, expiry: true }),
  'at_least_once, journal': atLeast({ ...journal }),
  'at_least_once, journal, node crash; expiry': atLeast({ ...journal, ...nodeCrash, expiry: true }),
  'at_least_once, journal, node crash; cancel': atLeast({ ...journal, ...nodeCrash, cancels: 1 }),
  'at_least_once, journal, also lost, client crash': atLeast({ ...journal, ...clientCrash, wipes: 1 }),
  'at_least_once, journal, no crash; two nodes': atLeast({ ...journal, ...noCrash, nodes: 2 }),
  // Beyond the 22 that the rules were found with.
  'at_most_once, memory, node crash; group': atMost({ ...nodeCrash, group: true }),
  'at_most_once, memory, no crash; group, cancel': atMost({ ...noCrash, group: true, cancels: 1 }),
  'at_most_once, journal, no crash; group, cancel': atMost({ ...journal, ...noCrash, group: true, cancels: 1 }),
  'at_least_once, memory, no crash; group': atLeast({ ...noCrash, group: true }),
  'at_least_once, memory, no crash; reports without attempt': atLeast({ ...noCrash, unnamed: true }),
  'at_least_once, journal, no crash; a wait before each attempt': atLeast({ ...journal, ...noCrash, backoff: true }),
  'at_least_once without retries, journal, client crash; retry or resolve': atLeast({
    ...journal,
    ...clientCrash,
    maxRetries: 0,
    words: 1,
  }),
}
