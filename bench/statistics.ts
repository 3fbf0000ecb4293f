/** The least value that so much of the sample does not exceed. */
export function percentile(sample: Iterable<number>, share: number): number {
  const sorted = Float64Array.from(sample).sort()
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN
}

export function median(sample: Iterable<number>): number {
  const sorted = Float64Array.from(sample).sort()
  const middle = sorted.length / 2
  return ((sorted[Math.ceil(middle) - 1] ?? Number.NaN) + (sorted[Math.floor(middle)] ?? Number.NaN)) / 2
}
