/** Polls until `probe` answers something truthy; the time limit is for failures only. */
export async function until<T>(
  probe: () => T | Promise<T>,
  what = 'condition',
  limitMs = 15_000,
): Promise<NonNullable<T>> {
  const deadline = performance.now() + limitMs
  for (;;) {
    const value = await probe()
    if (value) return value
    if (performance.now() > deadline) throw new Error(`${what} did not come true within ${limitMs} ms`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
