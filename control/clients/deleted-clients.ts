import { listDeleted } from '../../db/clients.ts'
import type { Db } from '../../db/connect.ts'

const PAGE = 1000

export async function* deletedClients(db: Db): AsyncGenerator<string[]> {
  for (let page = await listDeleted(db, '', PAGE); page.length > 0; ) {
    yield page
    page = page.length < PAGE ? [] : await listDeleted(db, page.at(-1) as string, PAGE)
  }
}
