import {
  closeSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { z } from 'zod'
import { ClientKey } from '../schemas/clients.ts'
import { Id } from '../schemas/ids.ts'

/** Who this device is, and where its server is. Without a client id: an enrolment with this key that has no answer yet. */
const Credentials = z.object({ clientId: Id.optional(), clientKey: ClientKey, url: z.string().optional() })
export type Credentials = z.infer<typeof Credentials>

/** Undefined if there is no such file. Throws if it cannot be read or is something else. */
export function readCredentials(file: string): Credentials | undefined {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
  // What the file holds is a secret: no part of it is in the error.
  try {
    return Credentials.parse(JSON.parse(text))
  } catch {
    throw new Error(`${file} is no file of credentials`)
  }
}

/** For this user's eyes only, whole or not at all, and on the disk when this returns. */
export function writeCredentials(file: string, credentials: Credentials): void {
  const aside = writeAside(file, credentials)
  renameSync(aside, file)
  syncFolder(dirname(file))
}

/** The same unless there are some: then those are answered, so that two that begin at once are one. */
export function beginCredentials(file: string, credentials: Credentials): Credentials {
  const aside = writeAside(file, credentials)
  try {
    linkSync(aside, file)
  } catch (error) {
    const known = readCredentials(file)
    if (known) return known
    // A file system without links.
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') throw error
    renameSync(aside, file)
  } finally {
    rmSync(aside, { force: true })
  }
  syncFolder(dirname(file))
  return credentials
}

function writeAside(file: string, credentials: Credentials): string {
  mkdirSync(dirname(file), { recursive: true })
  const aside = `${file}.${process.pid}.new`
  // One that a crash left behind may have another mode.
  rmSync(aside, { force: true })
  const descriptor = openSync(aside, 'wx', 0o600)
  try {
    writeSync(descriptor, `${JSON.stringify(credentials)}\n`)
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
  return aside
}

export const removeCredentials = (file: string): void => rmSync(file, { force: true })

/** Windows opens no folders; there the rename is the file system's business. */
function syncFolder(folder: string): void {
  if (process.platform === 'win32') return
  const descriptor = openSync(folder, 'r')
  try {
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
}
