import { CURVES, type Curve, growth, type Measured, pointValue } from './curves.ts'
import { FIGURES } from './figures.ts'
import { inWords } from './machine.ts'
import { figure, table, withUnit } from './markdown.ts'

/** One curve as it stands in docs/scaling.md: a row for each size, and the power of it that each figure grows with. */
export function showCurve({ scenario, size, columns }: Curve, { curves }: Measured): string {
  const points = curves.find((curve) => curve.scenario === scenario)?.points ?? []
  const heads = columns.map(({ figure: name, each }) =>
    each ? withUnit(each.label, each.unit) : withUnit(FIGURES[name].label, FIGURES[name].unit),
  )
  const powers = columns.map((column) =>
    growth(points.map((point) => ({ at: point.at, value: pointValue(column, point) }))),
  )
  const rows = [
    ...points.map((point) => [
      point.at.toLocaleString('en'),
      ...columns.map((column) => figure(pointValue(column, point))),
    ]),
    ...(points.length > 1
      ? [['grows with', ...powers.map((power) => (power === undefined ? '–' : inPowers(power)))]]
      : []),
  ]
  const notes = points.flatMap(({ at, note }) => (note ? [`\n${at.toLocaleString('en')}: ${note.split('\n')[0]}`] : []))
  return [`**${scenario}**`, '', table([size, ...heads], rows), ...notes].join('\n')
}

export const whereMeasured = ({ form, machine }: Measured): string =>
  `Measured in the ${form} form on ${inWords(machine)}.`

/** All of them, between the marks of the document. */
export const showCurves = (measured: Measured): string =>
  [
    '<!-- curves -->',
    whereMeasured(measured),
    ...CURVES.filter(({ scenario }) => measured.curves.some((curve) => curve.scenario === scenario)).map((curve) =>
      showCurve(curve, measured),
    ),
    '<!-- end of curves -->',
  ].join('\n\n')

const inPowers = (power: number): string => `n^${Math.round(power * 100) / 100 || 0}`
