import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'

/** When a device had a command, and when it knew that its outcome is committed: wall clock, ms. */
interface DeviceTimes {
  clientId: string
  id: string
  receivedAt: number
  reportedAt: number | undefined
}

/** What the journals of these clients say of the first attempts. */
export function readDeviceTimes(directory: string, clientIds: string[]): DeviceTimes[] {
  return clientIds.flatMap((clientId) => {
    const journal = new DatabaseSync(join(directory, `${clientId}.sqlite`), { readOnly: true })
    try {
      const rows = journal.prepare('select command_id, received_at, reported_at from attempts where attempt = 1').all()
      return rows.map((row) => ({
        clientId,
        id: String(row.command_id),
        receivedAt: Date.parse(String(row.received_at)),
        reportedAt: row.reported_at === null ? undefined : Date.parse(String(row.reported_at)),
      }))
    } finally {
      journal.close()
    }
  })
}

/** The least value that so much of the sample does not exceed. */
export function percentile(sample: number[], share: number): number {
  const sorted = sample.toSorted((a, b) => a - b)
  return sorted[Math.ceil(sorted.length * share) - 1] ?? Number.NaN
}
