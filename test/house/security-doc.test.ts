import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { Settings } from '../../schemas/settings.ts'

const page = readFileSync('SECURITY.md', 'utf8')
const named = [...page.matchAll(/`([^`\s]+)`/g)].map(([, name]) => name as string)
const files = named.filter((name) => /^(test|broker|api|control|schemas|db)\//.test(name))

test('every file and folder that SECURITY.md names is there', () => {
  expect(files.filter((file) => !existsSync(file))).toEqual([])
  expect(files.length).toBeGreaterThan(25)
})

test('every defence has a test', () => {
  const table = page.slice(page.indexOf('## What is defended'), page.indexOf('## What is not defended'))
  const rows = table.split('\n').filter((line) => line.startsWith('|'))
  expect(rows.length).toBeGreaterThan(15)
  const without = rows.slice(2).filter((row) => !/`test\/[^`]+\.test\.ts` ?(,|\|)/.test(row))
  expect(without).toEqual([])
})

test('every test of the abuse suite is named', () => {
  const tests = readdirSync('test/abuse').filter((file) => file.endsWith('.test.ts') && file !== 'census.test.ts')
  expect(tests.filter((file) => !files.includes(`test/abuse/${file}`))).toEqual([])
})

test('every setting that SECURITY.md names is one', () => {
  const settings = named.flatMap((name) => /^([A-Z]+_[A-Z_]+)(=.*)?$/.exec(name)?.[1] ?? [])
  const others = ['SIGNALBOX_TOKEN', 'NODE_OPTIONS']
  expect(settings.filter((name) => !(name in Settings.shape) && !others.includes(name))).toEqual([])
  expect(settings.length).toBeGreaterThan(5)
})
