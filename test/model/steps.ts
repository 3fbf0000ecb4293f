import type { Model, World } from './world.ts'

/** Who acts. Server and timer steps alone have to settle every execution; a fault is nobody's wish. */
export type Actor = 'client' | 'server' | 'timer' | 'principal' | 'fault'

interface Named {
  readonly name: string
  readonly by: Actor
}

/** One thing that may happen: `take` answers the world after it, or undefined where it cannot happen. */
export interface WorldStep extends Named {
  take(world: World, model: Model): World | undefined
}

export interface SessionStep extends Named {
  take(world: World, epoch: number, model: Model): World | undefined
}

export interface AttemptStep extends Named {
  take(world: World, epoch: number, attempt: number, model: Model): World | undefined
}
