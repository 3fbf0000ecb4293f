/** Data on stdout: one JSON document with --json, text for people without. */
export interface Output {
  readonly json: boolean
  show(document: unknown, text: () => string): void
}

export function createOutput(json: boolean): Output {
  return {
    json,
    show(document, text) {
      console.log(json ? JSON.stringify(document, null, 2) : text())
    },
  }
}

/** Progress and remarks. */
export const say = (line: string): void => console.error(line)

type Value = string | number | boolean | null | undefined | object

/** What devices and people typed must not move the cursor: control characters are shown escaped. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/g
export const printable = (text: string): string =>
  text.replace(CONTROL, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)

function cell(value: Value): string {
  if (value === undefined || value === null || value === '') return '-'
  if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return printable(value.join(', ')) || '-'
  return printable(typeof value === 'object' ? JSON.stringify(value) : String(value))
}

/** Aligned columns under a heading; `none` instead of an empty table. */
export function table(columns: string[], rows: Value[][], none = 'none'): string {
  if (rows.length === 0) return none
  const lines = [columns.map((name) => name.toUpperCase()), ...rows.map((row) => row.map(cell))]
  const widths = columns.map((_, index) => Math.max(...lines.map((line) => (line[index] as string).length)))
  const aligned = (line: string[]): string =>
    line
      .map((text, index) => text.padEnd(widths[index] as number))
      .join('  ')
      .trimEnd()
  return lines.map(aligned).join('\n')
}

/** One line per field that is there. */
export function fields(record: Record<string, Value>): string {
  const given = Object.entries(record).filter(([, value]) => value !== undefined)
  const width = Math.max(...given.map(([name]) => name.length))
  return given.map(([name, value]) => `${name.padEnd(width)}  ${cell(value)}`).join('\n')
}
