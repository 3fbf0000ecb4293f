import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { until } from './fixtures.ts'

export interface Child extends AsyncDisposable {
  process: ChildProcess
  tell(line: string): void
  /** Waits until the child has written this line. */
  said(line: string): Promise<void>
  /** kill -9 */
  kill(): Promise<void>
  exited: Promise<number | null>
}

/** Runs a script in a process of its own. */
export function startChild(script: URL, ...args: string[]): Child {
  const child = spawn(process.execPath, [fileURLToPath(script), ...args], { stdio: ['pipe', 'pipe', 'inherit'] })
  const exited = new Promise<number | null>((resolve) => child.once('close', resolve))
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text
  })
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL')
    await exited
  }
  return {
    process: child,
    exited,
    kill,
    tell: (line) => void child.stdin.write(`${line}\n`),
    said: (line) =>
      until(() => {
        if (!output.split('\n').includes(line)) throw new Error(`the child said ${JSON.stringify(output)}, not ${line}`)
      }),
    [Symbol.asyncDispose]: kill,
  }
}
