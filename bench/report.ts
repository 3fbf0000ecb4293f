import { FIGURES, type FigureName } from './figures.ts'
import { judge } from './judge.ts'
import { figure, table, withUnit } from './markdown.ts'
import { measured, type Result } from './run.ts'
import type { Bar } from './scenario.ts'

/** One scenario as lines of text: what was found of each subject, then the bars. */
export function showResult(result: Result): string {
  const { scenario, sizes, subjects, seconds } = result
  const names = (Object.keys(FIGURES) as FigureName[]).filter((name) =>
    subjects.some(({ medians }) => medians[name] !== undefined),
  )
  const found = [
    ['', ...subjects.map(({ name }) => name)],
    ...names.map((name) => [
      withUnit(FIGURES[name].label, FIGURES[name].unit),
      ...subjects.map(({ medians, rounds }) => spread(medians[name], measured(rounds, name))),
    ]),
  ]
  const bars = judge(result).map((verdict) => [
    nameOf(verdict.bar),
    figure(verdict.value),
    limits(verdict.bar),
    verdict.verdict,
  ])
  return [
    `${scenario.name}: ${scenario.measures}`,
    `  ${Object.entries(sizes)
      .map(([name, size]) => `${name} ${size}`)
      .join(', ')}; ${Math.round(seconds)} s`,
    ...(result.scaled ? [`  ${result.scaled}`] : []),
    ...aligned(found),
    ...subjects.flatMap(({ name, absent, failure }) => [
      ...(absent ? [`  ${name} is ${absent}`] : []),
      ...(failure ? [`  ${name} FAILED: ${failure}`] : []),
    ]),
    ...(bars.length > 0 ? ['', ...aligned(bars)] : []),
  ].join('\n')
}

/** All bars of a run as one Markdown table, as it stands in docs/performance.md. */
export function showSummary(results: Result[]): string {
  const rows = results.flatMap((result) =>
    judge(result).map(({ bar, value, verdict }) => [
      result.scenario.name,
      nameOf(bar),
      `${figure(value)}${unitOf(bar)}`,
      shown(bar.is, bar.bar),
      shown(bar.is, bar.goal),
      verdict,
    ]),
  )
  return table(['scenario', 'figure', 'measured', 'bar', 'goal', ''], rows)
}

/** Nothing failed and, in the full form, every bar is met. */
export const holds = (results: Result[]): boolean =>
  results.every(
    (result) =>
      result.subjects.every(({ failure }) => failure === undefined) &&
      (result.form !== 'full' || judge(result).every(({ verdict }) => verdict !== 'NOT MET')),
  )

/** How the bar is named in a table. */
const nameOf = ({ figure: name, against }: Bar): string =>
  [FIGURES[name].label, ...(against ? [against.by === 'ratio' ? '÷' : '−', against.subject] : [])].join(' ')

const unitOf = ({ figure: name, against }: Bar): string =>
  against?.by === 'ratio' ? ' ×' : FIGURES[name].unit && ` ${FIGURES[name].unit}`

const limits = ({ is, bar, goal }: Bar): string =>
  [
    ...(bar === undefined ? [] : [`bar ${shown(is, bar)}`]),
    ...(goal === undefined ? [] : [`goal ${shown(is, goal)}`]),
  ].join(', ')

const shown = (is: Bar['is'], limit: number | undefined): string =>
  limit === undefined ? '' : `${is === 'at least' ? '≥' : '≤'} ${figure(limit)}`

/** The median, and from where to where the rounds went. */
function spread(median: number | undefined, values: number[]): string {
  if (values.length < 2) return figure(median)
  return `${figure(median)} (${figure(Math.min(...values))}–${figure(Math.max(...values))})`
}

function aligned(rows: string[][]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  return rows.map((row) =>
    `  ${row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0))).join('  ')}`.trimEnd(),
  )
}
