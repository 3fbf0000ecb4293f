/** A Markdown table: first the heads, then the rows. */
export function table(heads: string[], rows: string[][]): string {
  const lines = [heads, heads.map((_, column) => (column === 0 ? '---' : '---:')), ...rows]
  return lines.map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}

/** Three digits, as much as a noisy machine can mean. */
export function figure(value: number | undefined): string {
  if (value === undefined || !Number.isFinite(value)) return '–'
  const digits = value === 0 ? 0 : Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))))
  return value.toLocaleString('en', { maximumFractionDigits: Math.min(digits, 3) })
}

export const withUnit = (label: string, unit: string): string => (unit === '' ? label : `${label}, ${unit}`)
