import type { Answer, Order } from './part.ts'

/** The program of every process that the harness starts from its own modules: it makes the part and does what it is told. */
process.once('message', async ({ module, options }: { module: string; options: unknown }) => {
  const { create } = await import(module)
  const part = await create(options)
  process.on('message', async ({ id, method, args }: Order) => {
    const answer: Answer = await Promise.resolve(part[method](...args)).then(
      (value) => ({ id, value }),
      (error: Error) => ({ id, error: error.stack ?? error.message }),
    )
    process.send?.(answer)
  })
  process.send?.({ id: 0 } satisfies Answer)
})
process.once('disconnect', () => process.exit(0))
