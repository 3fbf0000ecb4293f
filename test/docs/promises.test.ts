import { existsSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { Settings } from '../../schemas/settings.ts'

const page = readFileSync('docs/promises.md', 'utf8')

/** What is promised and not there: this list only gets shorter. */
const NOT_YET_BUILT: string[] = []

interface Sentence {
  rule: number
  text: string
  tests: { file: string; title: string }[]
  notYetBuilt: string[]
}

/** From the first rule on, a line is a heading, a sentence, or something that proves the sentence above it. */
function parsePage(): { sentences: Sentence[]; strays: string[] } {
  const sentences: Sentence[] = []
  const strays: string[] = []
  let rule = 0
  let current: Sentence | undefined
  for (const line of page.slice(page.indexOf('\n## 1.')).split('\n')) {
    const heading = /^## (\d+)\. /.exec(line)
    const proof = /^- `([^`]+)`: (.+)$/.exec(line)
    const missing = /^- not yet built: (.+)$/.exec(line)
    if (heading) {
      rule = Number(heading[1])
      current = undefined
    } else if (line.startsWith('> ')) {
      current = { rule, text: line.slice(2), tests: [], notYetBuilt: [] }
      sentences.push(current)
    } else if (current && proof) current.tests.push({ file: proof[1] as string, title: proof[2] as string })
    else if (current && missing) current.notYetBuilt.push(missing[1] as string)
    else if (line !== '') strays.push(line)
  }
  return { sentences, strays }
}

const { sentences, strays } = parsePage()

/** Whether the file has that title: a text in quotes as the first argument of a call, or in a table. */
function hasTitle(source: string, title: string): boolean {
  return ["'", '"', '`'].some((quote) =>
    source
      .split(`${quote}${title}${quote}`)
      .slice(0, -1)
      .some((before) => /(?:[([{,*]|name:)\s*$/.test(before)),
  )
}

test('the page has ten rules, and nothing but their sentences and what proves them', () => {
  expect(strays).toEqual([])
  expect([...new Set(sentences.map(({ rule }) => rule))]).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
  expect(new Set(sentences.map(({ text }) => text)).size).toBe(sentences.length)
})

test.each(sentences)('rule $rule has a test for: $text', ({ tests }) => {
  expect(tests.length).toBeGreaterThan(0)
  const missing = tests.filter(({ file, title }) => !existsSync(file) || !hasTitle(readFileSync(file, 'utf8'), title))
  expect(missing).toEqual([])
  expect(new Set(tests.map(({ file, title }) => `${file} ${title}`)).size).toBe(tests.length)
})

test('what is not yet built is said, and is nothing else than this', () => {
  expect(sentences.flatMap(({ notYetBuilt }) => notYetBuilt)).toEqual(NOT_YET_BUILT)
})

test('the defaults that the page names are those of the settings', () => {
  const defaults = Settings.parse({}) as Record<string, unknown>
  const named = [...page.matchAll(/`([A-Z][A-Z_]+)`[ ,(]+(\d+)/g)].map(([, name, value]) => [name, Number(value)])
  expect(named).toHaveLength(4)
  for (const [name, value] of named) expect([name, defaults[name as string]]).toEqual([name, value])
})

test('a title is found where it is one, and only there', () => {
  const source = `// as 'not this' says\ntest('this', () => {})\ntest.each([['and this', 1]])("%s's", check)\nexpect(x).toBe(y) // 'nor this'`
  expect(['this', 'and this', "%s's"].every((title) => hasTitle(source, title))).toBe(true)
  expect(['not this', 'nor this', 'thi', 'absent'].some((title) => hasTitle(source, title))).toBe(false)
})
