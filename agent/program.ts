import { spawn } from 'node:child_process'

/** A program and its arguments; there is no shell in between. */
export interface Program {
  command: string
  args: string[]
}

export interface ProgramEnd {
  /** The exit code; null if a signal ended it. */
  code: number | null
  /** The last 4000 characters of standard error, or of standard output if that was silent. */
  output: string
}

/** Thrown if the program is not installed. */
export class NoSuchProgramError extends Error {}

/**
 * Runs a program to its end. Throws NoSuchProgramError if it does not exist, an AbortError if `signal` ended it,
 * and the operating system's error if it could not be started.
 */
export async function runProgram({ command, args }: Program, signal: AbortSignal): Promise<ProgramEnd> {
  signal.throwIfAborted()
  const child = spawn(command, args, { signal, shell: false, stdio: ['ignore', 'pipe', 'pipe'], windowsHide: true })
  const output = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      output[name] = (output[name] + text).slice(-4000)
    })
  }
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', (error: NodeJS.ErrnoException) =>
      reject(error.code === 'ENOENT' ? new NoSuchProgramError(`${command} is not installed`) : error),
    )
    child.once('close', resolve)
  })
  return { code, output: (output.stderr || output.stdout).trim() }
}
