import { closeSync, fsyncSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { until } from '../support/until.ts'

/** What a device is asked to do in a fault run; it goes as the payload of the command. */
export interface Work {
  thinkMs: number
  fails: boolean
  /** So many of its first attempts fail, whatever `fails` says. */
  failures?: number
}

/** The actions of a fault run. Only `index` may be done again. */
export const ACTIONS = {
  print: { delivery: 'at_most_once' },
  index: { delivery: 'at_least_once', maxRetries: 3 },
} as const

/** One thing that really happened on a device. */
export interface Effect {
  clientId: string
  id: string
  attempt: number
}

export interface EffectFile {
  /** On disk when it returns. */
  append(effect: Effect): void
  close(): void
}

/** The world outside: what is written here has happened, whatever any program remembers. */
export function openEffects(file: string): EffectFile {
  const fd = openSync(file, 'a')
  return {
    append(effect) {
      writeSync(fd, `${JSON.stringify(effect)}\n`)
      fsyncSync(fd)
    },
    close: () => closeSync(fd),
  }
}

/** A line that a kill tore off never became an effect that anybody was told of. */
export function readLines<T>(file: string): T[] {
  const lines = readFileSync(file, 'utf8').split('\n')
  return lines.flatMap((line, index) => {
    if (line === '') return []
    if (index === lines.length - 1) return []
    return [JSON.parse(line) as T]
  })
}

/** Waits until the agents of a stand have begun to act on all these commands. */
export async function untilItHappens(standDirectory: string, ids: string[]): Promise<void> {
  const file = join(standDirectory, 'devices', 'effects.jsonl')
  const happened = (): Set<string> => new Set(readLines<Effect>(file).map(({ id }) => id))
  await until(() => new Set(ids).isSubsetOf(happened()), `${ids.length} commands begin`)
}
