/** A Markdown table: first the heads, then the rows. Columns of numbers are set to the right. */
export function table(heads: string[], rows: string[][]): string {
  const isNumber = (text = ''): boolean => /^(n\^|[-–\d])/.test(text)
  const areNumbers = (column: number): boolean => rows.length > 0 && rows.every((cells) => isNumber(cells[column]))
  const marks = heads.map((_, column) => (areNumbers(column) ? '---:' : '---'))
  return [heads, marks, ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}

/** Three digits, as much as a noisy machine can mean. */
export function figure(value: number | undefined): string {
  if (value === undefined || !Number.isFinite(value)) return '–'
  const digits = value === 0 ? 0 : Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))))
  return value.toLocaleString('en', { maximumFractionDigits: Math.min(digits, 3) })
}

export const withUnit = (label: string, unit: string): string => (unit === '' ? label : `${label}, ${unit}`)
