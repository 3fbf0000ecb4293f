import { z } from 'zod'

/** A number in an address, in plain digits: nothing is no 0, and neither are a blank, `0x10` or `1e3` numbers here. */
export const queryNumber = (number: z.ZodNumber): z.ZodType<number> =>
  z
    .string()
    .regex(/^\d{1,9}(\.\d{1,9})?$/, 'must be a number in digits')
    .transform(Number)
    .pipe(number)
