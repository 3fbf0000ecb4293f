import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { cliDocument } from '../../docs/cli.ts'

test('docs/cli.md is what the program says about itself', () => {
  expect(readFileSync('docs/cli.md', 'utf8')).toBe(cliDocument())
})
