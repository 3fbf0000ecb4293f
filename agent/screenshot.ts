import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Handler, MAX_RESULT_BYTES, RejectedError } from './handlers.ts'
import { NoSuchProgramError, type Program, runProgram } from './program.ts'

/** Stands for the file that the program is to write. */
const FILE = '{file}'
const PNG = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a])
/** Of the image: base64 makes 4 bytes of 3, and the envelope needs some too. */
const MAX_IMAGE_BYTES = Math.floor(((MAX_RESULT_BYTES - 1024) * 3) / 4)

/** Tried in order; the first that is installed takes the picture. */
const TOOLS: Partial<Record<NodeJS.Platform, Program[]>> = {
  linux: [
    { command: 'grim', args: [FILE] },
    { command: 'scrot', args: ['--overwrite', FILE] },
    { command: 'gnome-screenshot', args: ['--file', FILE] },
    { command: 'import', args: ['-window', 'root', `png:${FILE}`] },
  ],
  darwin: [{ command: 'screencapture', args: ['-x', '-t', 'png', FILE] }],
}

/**
 * The action `screenshot`: returns `{contentType, bytes, base64}`. Rejected without a tool; failed if the tool fails or
 * the picture does not fit in a report. `program` replaces the platform's tools; `{file}` in its arguments is the file.
 */
export function screenshotHandler(program?: Program): Handler {
  const tools = program ? [program] : (TOOLS[process.platform] ?? [])
  return async ({ signal }) => {
    const directory = await mkdtemp(join(tmpdir(), 'signalbox-screenshot-'))
    try {
      const file = join(directory, 'screen.png')
      await take(tools, file, signal)
      return describe(await readFile(file))
    } finally {
      await rm(directory, { recursive: true, force: true })
    }
  }
}

async function take(tools: Program[], file: string, signal: AbortSignal): Promise<void> {
  for (const { command, args } of tools) {
    try {
      const end = await runProgram({ command, args: args.map((arg) => arg.replace(FILE, file)) }, signal)
      if (end.code === 0) return
      throw screenshotError('SCREENSHOT_FAILED', `${command} ended with ${end.code}: ${end.output}`)
    } catch (error) {
      if (!(error instanceof NoSuchProgramError)) throw error
    }
  }
  const tried = tools.map(({ command }) => command).join(', ') || `none is known for ${process.platform}`
  throw new RejectedError('NO_SCREENSHOT_TOOL', `No program to take a screenshot is installed (${tried})`)
}

function describe(image: Buffer): { contentType: string; bytes: number; base64: string } {
  if (!image.subarray(0, PNG.length).equals(PNG)) {
    throw screenshotError('SCREENSHOT_FAILED', 'The program wrote no PNG')
  }
  if (image.length > MAX_IMAGE_BYTES) {
    const limit = `over the ${MAX_IMAGE_BYTES} that fit in a report; have the program scale it down`
    throw screenshotError('SCREENSHOT_TOO_LARGE', `The screenshot has ${image.length} bytes, ${limit}`)
  }
  return { contentType: 'image/png', bytes: image.length, base64: image.toString('base64') }
}

function screenshotError(code: string, message: string): Error {
  return Object.assign(new Error(message), { code })
}
