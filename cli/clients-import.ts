import { readFileSync } from 'node:fs'
import { z } from 'zod'
import type { Client } from '../schemas/clients.ts'
import type { Api } from './api-client.ts'
import type { ApiSession } from './api-command.ts'
import { parseCsv } from './csv.ts'
import { NotDoneError, RefusedError, UnreachableError, UsageError } from './failures.ts'
import { table } from './output.ts'

interface Row {
  /** As people count in the file: 1 is the first client. */
  row: number
  body: Record<string, unknown>
}

interface Result {
  row: number
  id: string
  outcome: 'created' | 'skipped' | 'failed'
  clientKey?: string
  code?: string
  detail?: string
}

/** Registers each row of a file. A taken id is skipped; nothing is rolled back: the report says what became of each row. */
export async function importClients(
  { api, out }: ApiSession,
  { concurrency }: { concurrency: number },
  file: string,
): Promise<void> {
  const rows = readRows(file)
  const results: Result[] = []
  let gone: UnreachableError | undefined
  const queue = rows.values()
  const worker = async (): Promise<void> => {
    for (const row of queue) {
      const result = gone ? unsent(row) : await register(api, row)
      if (result instanceof UnreachableError) {
        gone = result
        results.push({ ...unsent(row), code: 'UNREACHABLE', detail: result.message })
      } else results.push(result)
    }
  }
  await Promise.all(Array.from({ length: concurrency }, worker))
  results.sort((a, b) => a.row - b.row)
  const of = (outcome: Result['outcome']): Result[] => results.filter((result) => result.outcome === outcome)
  const counts = { created: of('created').length, skipped: of('skipped').length, failed: of('failed').length }
  // Keys are shown only now: the report comes before any word about what went wrong.
  out.show({ ...counts, rows: results }, () => {
    const lines = results.map(({ row, id, outcome, clientKey, detail }) => [row, id, outcome, clientKey ?? detail])
    return table(['row', 'id', 'outcome', 'key or reason'], lines, 'the file has no rows')
  })
  console.error(`${counts.created} created, ${counts.skipped} skipped, ${counts.failed} failed`)
  if (gone) throw gone
  if (counts.failed > 0) throw new NotDoneError('')
}

const idOf = ({ body }: Row): string => (typeof body.id === 'string' ? body.id : '')

const unsent = (row: Row): Result => ({
  row: row.row,
  id: idOf(row),
  outcome: 'failed',
  code: 'NOT_SENT',
  detail: 'not sent: the server was gone',
})

async function register(api: Api, row: Row): Promise<Result | UnreachableError> {
  const id = idOf(row)
  try {
    const { clientKey } = await api<{ client: Client; clientKey: string }>('POST', '/clients', row.body)
    return { row: row.row, id, outcome: 'created', clientKey }
  } catch (error) {
    if (error instanceof UnreachableError) return error
    if (!(error instanceof RefusedError)) throw error
    const { code, detail } = error.problem
    return { row: row.row, id, outcome: code === 'CONFLICT' ? 'skipped' : 'failed', code, detail }
  }
}

function readRows(file: string): Row[] {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    throw new UsageError(`cannot read ${file}: ${(error as Error).message}`)
  }
  try {
    return (/\.json$/i.test(file) ? readJson(text) : readCsv(text)).map((body, index) => ({ row: index + 1, body }))
  } catch (error) {
    throw new UsageError(`${file}: ${(error as Error).message}`)
  }
}

function readJson(text: string): Record<string, unknown>[] {
  const parsed = z.array(z.record(z.string(), z.unknown())).safeParse(JSON.parse(text))
  if (!parsed.success) throw new Error('must be a list of objects {id, name?, zones?, maxInFlight?, metadata?}')
  return parsed.data
}

const COLUMNS = ['id', 'name', 'zones', 'maxInFlight']

function readCsv(text: string): Record<string, unknown>[] {
  const [heading = [], ...lines] = parseCsv(text)
  const names = heading.map((name) => name.trim())
  const unknown = names.filter((name) => !COLUMNS.includes(name) && !/^metadata\../.test(name))
  if (unknown.length > 0)
    throw new Error(`no such column: ${unknown.join(', ')}; there are ${COLUMNS.join(', ')}, metadata.*`)
  if (!names.includes('id')) throw new Error('the first line must name the columns, id among them')
  return lines.map((line) => toBody(Object.fromEntries(names.map((name, index) => [name, line[index]?.trim() ?? '']))))
}

function toBody(line: Record<string, string>): Record<string, unknown> {
  const { id, name, zones, maxInFlight } = line
  const metadata = Object.entries(line).filter(([column, value]) => column.startsWith('metadata.') && value !== '')
  return {
    id,
    ...(name ? { name } : {}),
    ...(zones
      ? {
          zones: zones
            .split(';')
            .map((zone) => zone.trim())
            .filter(Boolean),
        }
      : {}),
    // What is no number goes as it is: the server says what is wrong with it.
    ...(maxInFlight ? { maxInFlight: Number.isNaN(Number(maxInFlight)) ? maxInFlight : Number(maxInFlight) } : {}),
    ...(metadata.length > 0
      ? { metadata: Object.fromEntries(metadata.map(([column, value]) => [column.slice('metadata.'.length), value])) }
      : {}),
  }
}
