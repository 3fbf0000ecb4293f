export interface MetricFamily {
  name: string
  help: string
  type: string
  samples: { name: string; labels: Record<string, string>; value: number }[]
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/
const LABEL = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)/
const VALUE = /^(?:[+-]?(?:\d+(?:\.\d+)?|\.\d+)(?:e[+-]?\d+)?|[+-]Inf|NaN)$/

/**
 * Reads Prometheus' text format 0.0.4, and accepts nothing that a careful reader would not: a HELP and a TYPE per family and
 * before its samples, families in one piece, no series twice, histograms that add up.
 */
export function parseExposition(text: string): Map<string, MetricFamily> {
  const families = new Map<string, MetricFamily>()
  const series = new Set<string>()
  let current: MetricFamily | undefined
  if (!text.endsWith('\n')) throw new Error('the last line has no end')
  for (const line of text.slice(0, -1).split('\n')) {
    if (line === '') continue
    const fail = (why: string): never => {
      throw new Error(`${why}: ${line}`)
    }
    const comment = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line)
    if (line.startsWith('#')) {
      const [, keyword, name, rest] = comment ?? fail('neither HELP nor TYPE')
      if (!NAME.test(name as string)) fail('no metric name')
      if (keyword === 'HELP') {
        if (families.has(name as string)) fail('a family in two pieces')
        current = { name: name as string, help: rest as string, type: '', samples: [] }
        families.set(current.name, current)
      } else {
        if (current?.name !== name || current?.type !== '') fail('TYPE without its HELP')
        if (!['counter', 'gauge', 'histogram'].includes(rest as string)) fail('no such type')
        ;(current as MetricFamily).type = rest as string
      }
      continue
    }
    const sample = parseSample(line, fail)
    if (!current || current.type === '') return fail('a sample without HELP and TYPE')
    const suffix = sample.name.slice(current.name.length)
    const suffixes = current.type === 'histogram' ? ['_bucket', '_sum', '_count'] : ['']
    if (!sample.name.startsWith(current.name) || !suffixes.includes(suffix)) fail(`not of ${current.name}`)
    const key = `${sample.name} ${JSON.stringify(Object.entries(sample.labels).sort())}`
    if (series.has(key)) fail('the series is there twice')
    series.add(key)
    current.samples.push(sample)
  }
  for (const family of families.values()) check(family)
  return families
}

function parseSample(line: string, fail: (why: string) => never): MetricFamily['samples'][number] {
  const [, name = '', inner = '', value = ''] = /^([^\s{]+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? fail('no sample')
  if (!NAME.test(name)) fail('no metric name')
  if (!VALUE.test(value)) fail('no value')
  const labels: Record<string, string> = {}
  for (let rest = inner; rest !== ''; ) {
    const [whole, label = '', text = '', end] = LABEL.exec(rest) ?? fail('no labels')
    if (label in labels) fail('a label is there twice')
    labels[label] = text.replace(/\\(["\\n])/g, (_, escaped) => (escaped === 'n' ? '\n' : escaped))
    rest = rest.slice(whole?.length)
    if (end === ',' && rest === '') fail('a comma without a label')
  }
  return { name, labels, value: value === '+Inf' ? Number.POSITIVE_INFINITY : Number(value) }
}

function check({ name, type, samples }: MetricFamily): void {
  if (type === '') throw new Error(`${name} has no TYPE`)
  if (type === 'counter' && samples.some(({ value }) => !(value >= 0))) throw new Error(`${name} counts below 0`)
  if (type !== 'histogram') return
  const ofSeries = Map.groupBy(samples, ({ labels: { le: _, ...labels } }) => JSON.stringify(labels))
  for (const [labels, found] of ofSeries) {
    const buckets = found.filter((sample) => sample.name === `${name}_bucket`)
    const bounds = buckets.map(({ labels: { le } }) => (le === '+Inf' ? Number.POSITIVE_INFINITY : Number(le)))
    const count = found.find((sample) => sample.name === `${name}_count`)?.value
    const grows = (values: number[], strictly: boolean): boolean =>
      values.every((value, index) => index === 0 || value > (values[index - 1] as number) - (strictly ? 0 : 1e-9))
    const complete = found.some((sample) => sample.name === `${name}_sum`) && bounds.at(-1) === Number.POSITIVE_INFINITY
    if (
      !complete ||
      !grows(bounds, true) ||
      !grows(
        buckets.map(({ value }) => value),
        false,
      )
    ) {
      throw new Error(`${name}${labels} is no histogram`)
    }
    if (buckets.at(-1)?.value !== count) throw new Error(`${name}${labels} does not add up`)
  }
}
