import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { settingsDocument } from '../../docs/settings.ts'

test('docs/settings.md lists every setting with its default and its meaning', () => {
  expect(readFileSync('docs/settings.md', 'utf8')).toBe(settingsDocument())
})
