import { appendFileSync, readFileSync } from 'node:fs'

/** From when to when a device had a connection, as the device itself saw it. */
export interface Presence {
  clientId: string
  door: 'mqtt' | 'http'
  /** Wall clock, ms; all devices of a run have the same one. */
  from: number
  to: number
}

interface PresenceLog {
  door(clientId: string, door: Presence['door']): { opened(): void; closed(): void }
}

/** A line for every connection that has ended. */
export function openPresenceLog(file: string): PresenceLog {
  appendFileSync(file, '')
  return {
    door(clientId, door) {
      let from = 0
      return {
        opened() {
          from = Date.now()
        },
        closed() {
          appendFileSync(file, `${JSON.stringify({ clientId, door, from, to: Date.now() } satisfies Presence)}\n`)
        },
      }
    },
  }
}

export function readPresence(files: string[]): Presence[] {
  return files.flatMap((file) =>
    readFileSync(file, 'utf8')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Presence),
  )
}
