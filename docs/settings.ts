import { writeFileSync } from 'node:fs'
import { Settings } from '../schemas/settings.ts'

/** The text of docs/settings.md, made from the schema that reads the settings. */
export function settingsDocument(): string {
  const defaults = Settings.parse({}) as Record<string, unknown>
  const rows = Object.entries(Settings.shape).map(
    ([name, schema]) =>
      `| \`${name}\` | ${String(defaults[name] ?? '') === '' ? 'absent' : `\`${defaults[name]}\``} | ${schema.description} |`,
  )
  return `# Settings

Environment variables, read once at the start; every fault is reported together. Made by \`npm run docs:settings\`.

| variable | default | meaning |
|---|---|---|
${rows.join('\n')}
`
}

if (import.meta.main) writeFileSync(new URL('./settings.md', import.meta.url), settingsDocument())
