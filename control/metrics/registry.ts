/** One line of a scrape. `suffix` follows the metric's name: `_bucket`, `_sum`, `_count`. */
export interface Sample {
  suffix?: string
  labels: Record<string, string | number>
  value: number
}

/** A metric with all its series, to be read when somebody asks. */
export interface Family {
  name: string
  help: string
  type: 'counter' | 'gauge' | 'histogram'
  read(): Sample[] | Promise<Sample[]>
}

export interface Counter {
  add(by?: number): void
}

export interface Histogram {
  observe(value: number): void
}

/**
 * What is counted, as plain numbers: an increment costs nanoseconds, and text is made only for a scrape. Each app has its own.
 * Whoever counts often asks for a series once and keeps it.
 */
export interface Registry {
  /** The series of label values, in the order of the labels. */
  counter(name: string, help: string, labels: string[]): (...values: string[]) => Counter
  histogram(
    name: string,
    help: string,
    buckets: readonly number[],
    labels: string[],
  ): (...values: string[]) => Histogram
  /** A metric that is looked up at the scrape: a state, or what somebody else has counted. */
  observed(
    type: 'counter' | 'gauge',
    name: string,
    help: string,
    read: () => Sample[] | number | Promise<Sample[] | number>,
  ): void
  families(): Iterable<Family>
}

const PREFIX = 'signalbox_'

export function createRegistry(): Registry {
  const families = new Map<string, Family>()

  function add(family: Family): void {
    if (families.has(family.name)) throw new Error(`metric ${family.name} is there already`)
    families.set(family.name, family)
  }

  /** A metric whose series are made when their labels are first asked for. */
  function labelled<T>(
    { make, read, ...about }: Pick<Family, 'name' | 'help' | 'type'> & { make(): T; read(series: T): Sample[] },
    labels: string[],
  ): (...values: string[]) => T {
    const series = new Map<string, { labels: Sample['labels']; of: T }>()
    const seriesOf = (...values: string[]): T => {
      const key = values.join('\n')
      const known = series.get(key)
      if (known) return known.of
      const made = {
        labels: Object.fromEntries(labels.map((label, index) => [label, values[index] as string])),
        of: make(),
      }
      series.set(key, made)
      return made.of
    }
    add({
      ...about,
      read: () =>
        [...series.values()].flatMap((one) =>
          read(one.of).map((sample) => ({ ...sample, labels: { ...one.labels, ...sample.labels } })),
        ),
    })
    // Without labels there is one series, and it stands at 0 from the start.
    if (labels.length === 0) seriesOf()
    return seriesOf
  }

  return {
    counter: (name, help, labels) =>
      labelled(
        { name: PREFIX + name, help, type: 'counter', make: createCounter, read: (counter) => counter.read() },
        labels,
      ),
    histogram: (name, help, buckets, labels) =>
      labelled(
        {
          name: PREFIX + name,
          help,
          type: 'histogram',
          make: () => createHistogram(buckets),
          read: (histogram) => histogram.read(),
        },
        labels,
      ),
    observed(type, name, help, read) {
      add({
        name: PREFIX + name,
        help,
        type,
        async read() {
          const found = await read()
          return typeof found === 'number' ? [{ labels: {}, value: found }] : found
        },
      })
    },
    families: () => families.values(),
  }
}

function createCounter(): Counter & { read(): Sample[] } {
  let value = 0
  return {
    add(by = 1) {
      value += by
    },
    read: () => [{ labels: {}, value }],
  }
}

function createHistogram(bounds: readonly number[]): Histogram & { read(): Sample[] } {
  /** Not cumulative; the last one is for what is above all bounds. */
  const counts = new Float64Array(bounds.length + 1)
  let sum = 0
  return {
    observe(value) {
      let index = 0
      while (index < bounds.length && value > (bounds[index] as number)) index++
      counts[index] = (counts[index] as number) + 1
      sum += value
    },
    read() {
      let total = 0
      const buckets = [...counts].map((count, index) => {
        total += count
        return { suffix: '_bucket', labels: { le: bounds[index] ?? '+Inf' }, value: total }
      })
      return [...buckets, { suffix: '_sum', labels: {}, value: sum }, { suffix: '_count', labels: {}, value: total }]
    },
  }
}
