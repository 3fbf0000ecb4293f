const STEP_MS = 10

/** Attempts so many times a second, as far as it can, until its process is killed; tells the parent what came of it so far. */
export function attack(
  perSecond: number,
  counts: { attempted: number; refused: number },
  { canAttempt, attempt }: { canAttempt(): boolean; attempt(): void },
): void {
  const started = performance.now()
  const seconds = (): number => (performance.now() - started) / 1000
  setInterval(() => {
    for (const due = seconds() * perSecond; counts.attempted < due && canAttempt(); counts.attempted++) attempt()
  }, STEP_MS)
  setInterval(() => process.send?.({ ...counts, seconds: seconds() }), 500)
}
