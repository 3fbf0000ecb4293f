/** Rows of a CSV text (RFC 4180: quotes, doubled quotes, line ends within quotes). Throws if a quote is never closed. */
export function parseCsv(text: string): string[][] {
  const rows: string[][] = []
  let row: string[] = []
  let field = ''
  let quoted = false
  const endField = (): void => {
    row.push(field)
    field = ''
  }
  const endRow = (): void => {
    endField()
    if (row.some((value) => value !== '')) rows.push(row)
    row = []
  }
  // A byte order mark is what spreadsheets put in front.
  for (const [token] of text.replace(/^\uFEFF/, '').matchAll(/""|"|,|\r?\n|[^",\r\n]+|\r/g)) {
    if (quoted) {
      if (token === '"') quoted = false
      else field += token === '""' ? '"' : token
    } else if (token === '"') quoted = true
    else if (token === ',') endField()
    else if (token === '\n' || token === '\r\n') endRow()
    // Outside of quotes a pair of them is an empty field.
    else if (token !== '""') field += token
  }
  if (quoted) throw new Error('a quote is opened and never closed')
  if (field !== '' || row.length > 0) endRow()
  return rows
}
