import type { Accepted } from './load.ts'
import type { Stand } from './stand.ts'

/** Creates a command that has to be accepted, and puts it down as promised. `wait`: seconds until its outcome at most. */
export async function create(
  stand: Stand,
  accepted: Accepted[],
  body: Record<string, unknown>,
  { wait = 0 } = {},
): Promise<Accepted> {
  const key = crypto.randomUUID()
  const answer = await stand.api.post(`/commands?wait=${wait}`, body, { 'idempotency-key': key })
  if (answer.status !== 201) throw new Error(`not accepted: ${answer.status} ${JSON.stringify(answer.body)}`)
  const { id, delivery, total } = answer.body
  const promised = { id, key, delivery, total }
  accepted.push(promised)
  return promised
}
