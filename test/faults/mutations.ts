import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** A way to be wrong, patched into a copy of the tree, and what has to notice it there. */
export interface Mutation {
  name: string
  file: string
  /** Exactly one place. */
  find: string
  replace: string
  proof: { args: string[]; says: RegExp }
}

const TREE = fileURLToPath(new URL('../../', import.meta.url))
const faults = (sizes: Record<string, number>): string[] => [
  'test/faults/main.ts',
  '--only',
  'server-kills',
  '--sizes',
  JSON.stringify(sizes),
]
const test = (...args: string[]): string[] => ['node_modules/vitest/vitest.mjs', 'run', ...args]

export const MUTATIONS: Mutation[] = [
  {
    name: 'PUBACK before the commit',
    file: 'broker/receive.ts',
    find: '    hold(connection, answered)\n    await answered\n',
    replace: '    hold(connection, answered)\n',
    proof: {
      args: faults({ commands: 400, agents: 20, hosts: 1, plain: 4, kills: 4, settleSeconds: 5 }),
      says: /a report whose PUBACK the device saw is in the database: /,
    },
  },
  {
    name: "the agent's de-duplication off",
    file: 'agent/attempts.ts',
    find: '  if (find(attempts, attempt)) return reportAgain(attempts, attempt)\n',
    replace: '',
    proof: {
      args: faults({ commands: 400, agents: 20, hosts: 1, plain: 0, kills: 4, settleSeconds: 20 }),
      says: /nothing happens twice: /,
    },
  },
  {
    name: 'no lock at takeover',
    file: 'control/sessions/keyed-lock.ts',
    find: '      await previous\n',
    replace: '',
    proof: { args: test('test/broker/takeover.test.ts'), says: /FAIL .*takeover\.test\.ts/ },
  },
  {
    name: "Aedes' own de-duplication back",
    file: 'broker/assembly.ts',
    find: '    client.duplicates = duplicates\n',
    replace: '',
    proof: { args: test('test/broker/delivery.test.ts', '-t', 'overtake'), says: /FAIL .*delivery\.test\.ts/ },
  },
]

/** Runs the proof in a mutated copy of the tree; answers what it printed and whether it noticed. */
export async function prove({
  name,
  file,
  find,
  replace,
  proof,
}: Mutation): Promise<{ noticed: boolean; output: string }> {
  const copy = mkdtempSync(join(tmpdir(), 'signalbox-mutation-'))
  try {
    const listed = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], { cwd: TREE })
    for (const path of listed.toString().trim().split('\n')) {
      if (path !== 'node_modules') cpSync(join(TREE, path), join(copy, path), { recursive: true })
    }
    symlinkSync(join(TREE, 'node_modules'), join(copy, 'node_modules'))
    const text = readFileSync(join(copy, file), 'utf8')
    if (text.split(find).length !== 2) throw new Error(`${name}: ${file} has not exactly one place to change`)
    writeFileSync(
      join(copy, file),
      text.replace(find, () => replace),
    )
    const child = spawn(process.execPath, proof.args, {
      cwd: copy,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, NO_COLOR: '1' },
    })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk))
    const [code] = await once(child, 'close')
    return { noticed: code !== 0 && proof.says.test(output), output: output.replaceAll(dirname(copy), '') }
  } finally {
    rmSync(copy, { recursive: true, force: true })
  }
}
