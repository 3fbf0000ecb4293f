/** What the embedded PostgreSQL needs on disk and from Linux before it can run: see embedded-postgres.ts. */
import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { existsSync, readFileSync, readlinkSync, realpathSync, statSync } from 'node:fs'
import {
  appendFile,
  chmod,
  lchown,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  symlink,
} from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'

/** Everything lives below `root`, so that it may be a mount point, and so that removing it removes all. */
export interface Layout {
  root: string
  /** PostgreSQL's own data directory. */
  cluster: string
  /** Links under the names by which the binaries look for their shared libraries. */
  libraries: string
  /** Socket directory, or, where its path is too long for a socket, a link to one under the system's temporary folder. */
  socket: string
  log: string
}

/** How a PostgreSQL program is run here: its folder, what goes before its name, and its whole environment. */
export interface Launch {
  bin: string
  prefix: string[]
  env: Record<string, string>
}

/** Port of the server; over a Unix socket only a part of the socket's name. */
export const PORT = 5432
const SOCKET_NAME = `.s.PGSQL.${PORT}`
const SOCKET_PATH_LIMIT_BYTES = 107
const PACKAGED_FOR = ['linux-x64', 'linux-arm64']
const NOBODY = { uid: 65534, gid: 65534 }
const UNSHARE = ['unshare', '--user', `--map-user=${NOBODY.uid}`, `--map-group=${NOBODY.gid}`, '--']
const LOG_LIMIT_BYTES = 10_000_000
// Nothing inherited: PGPORT, PGDATA, LANG and their like would change what the server does.
const ENVIRONMENT = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' }
const TEMPORARY_SOCKETS = 'signalbox-postgres.'
const TEMPORARY_CLUSTER = 'cluster.new.'

/** Paths of the parts; `dataDir` may be relative to the working directory. */
export function layoutIn(dataDir: string): Layout {
  const root = resolve(dataDir)
  const below = (name: string) => join(root, name)
  return { root, cluster: below('cluster'), libraries: below('lib'), socket: below('run'), log: below('server.log') }
}

/** The `native` folder of the installed binaries. Throws, naming DATABASE_URL, where there are none. */
export function nativeFolder(platform: string = process.platform, arch: string = process.arch): string {
  const name = `@embedded-postgres/${platform}-${arch}`
  const advice = 'set DATABASE_URL to use a PostgreSQL server of your own'
  if (!PACKAGED_FOR.includes(`${platform}-${arch}`)) {
    throw new Error(`There is no embedded PostgreSQL for ${platform}-${arch}: ${advice}`)
  }
  try {
    return join(dirname(createRequire(import.meta.url).resolve(name)), '../native')
  } catch (cause) {
    throw new Error(`The optional package ${name} is not installed: run npm ci, or ${advice}`, { cause })
  }
}

/** Finds out how PostgreSQL, which refuses to run as uid 0, runs as this user; may change the owner of `root`. */
export async function prepareLaunch(layout: Layout, native: string): Promise<Launch> {
  await linkLibraries(native, layout.libraries)
  await prepareLog(layout.log)
  return {
    bin: join(native, 'bin'),
    prefix: await launchPrefix(layout),
    env: { ...ENVIRONMENT, LD_LIBRARY_PATH: `${layout.libraries}:${join(native, 'lib')}` },
  }
}

/** Makes the log, so that it changes owner with the rest, and keeps it from growing for ever. */
async function prepareLog(path: string): Promise<void> {
  if ((statSync(path, { throwIfNoEntry: false })?.size ?? 0) > LOG_LIMIT_BYTES) await rename(path, `${path}.old`)
  await appendFile(path, '', { mode: 0o600 })
}

/** The package's postinstall would make these links inside node_modules; it may not run, or not be allowed to write. */
async function linkLibraries(native: string, folder: string): Promise<void> {
  const links: { source: string; target: string }[] = JSON.parse(
    await readFile(join(native, 'pg-symlinks.json'), 'utf8'),
  )
  await mkdir(folder, { recursive: true, mode: 0o700 })
  for (const { source, target } of links) {
    await replaceLink(join(native, '..', source), join(folder, basename(target)))
  }
}

/** Atomic, because a second starter may use the link at this moment. */
async function replaceLink(target: string, path: string): Promise<void> {
  if ((await readlink(path).catch(() => undefined)) === target) return
  const fresh = `${path}.${randomUUID()}`
  await symlink(target, fresh)
  await rename(fresh, path)
}

async function launchPrefix(layout: Layout): Promise<string[]> {
  // setpriv asks for SIGINT (fast shutdown) at the parent's death. A parent that died before it asked sends none, so sh
  // looks once more. Comes last, as a change of user forgets the request; it is the death of the *thread* that counts.
  const dieWithParent = ['setpriv', '--pdeathsig', 'INT', '--', 'sh', '-c', '[ "$PPID" = "$0" ] && exec "$@"']
  dieWithParent.push(String(process.pid))
  if (process.getuid?.() !== 0) return dieWithParent

  const data = statSync(existsSync(layout.cluster) ? layout.cluster : layout.root)
  // A user namespace: still root to the file system, so the data stays root's, and reachable below a 0700 home.
  if (data.uid === 0 && (await run([...UNSHARE, 'true'], ENVIRONMENT)).ok) return [...UNSHARE, ...dieWithParent]
  // Namespaces forbidden (Docker's default), or the data is an ordinary user's: become the owner, and keep the one
  // capability that reaches it anywhere. Without the securebit initdb's access() would ignore that capability.
  const owner = data.uid === 0 ? NOBODY : data
  await chownTree(layout.root, owner)
  const identity = [`--reuid=${owner.uid}`, `--regid=${owner.gid}`, '--clear-groups', '--securebits=+no_setuid_fixup']
  const capabilities = ['--inh-caps=-all,+dac_override', '--ambient-caps=-all,+dac_override']
  return ['setpriv', ...identity, ...capabilities, '--', ...dieWithParent]
}

async function chownTree(root: string, { uid, gid }: { uid: number; gid: number }): Promise<void> {
  for (const path of ['', ...(await readdir(root, { recursive: true }))]) {
    await lchown(join(root, path), uid, gid).catch((error) => {
      if (error.code !== 'ENOENT') throw error // A file of a server that runs may go meanwhile.
    })
  }
}

/** Runs a program to its end. Never rejects: a program that cannot be started is not `ok` either. */
async function run(command: string[], env: Record<string, string>): Promise<{ ok: boolean; output: string }> {
  const [program = '', ...args] = command
  const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
  let output = ''
  child.stdout.on('data', (chunk) => (output += chunk))
  child.stderr.on('data', (chunk) => (output += chunk))
  return new Promise((done) => {
    child.once('error', (error) => done({ ok: false, output: error.message }))
    child.once('close', (code) => done({ ok: code === 0, output }))
  })
}

/**
 * Makes the cluster unless it exists. It is built beside its place and renamed, so a kill in the middle or two starters
 * at once never leave half a cluster. Returns whether this call made it. Throws with initdb's output.
 */
export async function createCluster(layout: Layout, launch: Launch, user: string): Promise<boolean> {
  for (const name of await readdir(layout.root)) await removeLeftover(join(layout.root, name), TEMPORARY_CLUSTER)
  if (existsSync(join(layout.cluster, 'PG_VERSION'))) return false

  const temporary = join(layout.root, `${TEMPORARY_CLUSTER}${processMark()}${randomUUID()}`)
  const encoding = ['--encoding=UTF8', '--locale-provider=builtin', '--locale=C.UTF-8']
  const options = ['-D', temporary, '-U', user, '--auth=trust', '--no-instructions', ...encoding]
  try {
    const { ok, output } = await run([...launch.prefix, join(launch.bin, 'initdb'), ...options], launch.env)
    if (!ok) throw new Error(`initdb could not make a PostgreSQL cluster in ${layout.root}:\n${output.trim()}`)
    await rename(temporary, layout.cluster)
    return true
  } catch (error) {
    // Another starter was faster: its cluster is as good.
    if (existsSync(join(layout.cluster, 'PG_VERSION'))) return false
    throw error
  } finally {
    await rm(temporary, { recursive: true, force: true, maxRetries: 5 })
  }
}

/** Makes the 0700 directory of the server's socket and returns its path, which `removeSocketFolder` takes. */
export async function makeSocketFolder(layout: Layout): Promise<string> {
  const earlier = await readlink(layout.socket).catch(() => undefined)
  if (earlier) await removeLeftover(earlier, TEMPORARY_SOCKETS)
  if (Buffer.byteLength(join(layout.socket, SOCKET_NAME)) <= SOCKET_PATH_LIMIT_BYTES) {
    if (earlier) await rm(layout.socket, { force: true })
    await mkdir(layout.socket, { recursive: true })
    await chmod(layout.socket, 0o700)
    return layout.socket
  }
  const temporary = await mkdtemp(join(tmpdir(), `${TEMPORARY_SOCKETS}${processMark()}`))
  // The link lets the next start find and remove the directory if this process is killed.
  await replaceLink(temporary, layout.socket)
  return temporary
}

/** Removes a socket directory made outside the data directory. */
export async function removeSocketFolder(layout: Layout, folder: string): Promise<void> {
  if (folder === layout.socket) return
  await rm(folder, { recursive: true, force: true })
  if ((await readlink(layout.socket).catch(() => undefined)) === folder) await rm(layout.socket, { force: true })
}

/** Part of a temporary name by which a later start knows whether its maker still runs: pid and start time in ticks. */
function processMark(): string {
  return `${process.pid}.${readProcess(process.pid)?.startTicks}.`
}

/** Removes a temporary directory whose name starts with `prefix` and whose maker is dead; leaves all else alone. */
async function removeLeftover(path: string, prefix: string): Promise<void> {
  const name = basename(path)
  const [pid, startTicks] = name.slice(prefix.length).split('.')
  if (!name.startsWith(prefix) || readProcess(Number(pid))?.startTicks === startTicks) return
  await rm(path, { recursive: true, force: true, maxRetries: 5 })
}

/** First and eighth line of postmaster.pid: `status` is `starting`, `ready`, `stopping` or `standby`. */
export function readPidFile(layout: Layout): { pid: number; status: string } | undefined {
  const lines = readText(join(layout.cluster, 'postmaster.pid'))?.split('\n')
  return lines && { pid: Math.abs(Number(lines[0])), status: lines[7]?.trim() ?? '' }
}

/** The pid of the PostgreSQL that serves this cluster now, whoever started it. */
export function holderOf(layout: Layout): number | undefined {
  const pid = readPidFile(layout)?.pid
  return pid && servesCluster(pid, layout) ? pid : undefined
}

/**
 * Removes lock files that PostgreSQL would respect although nobody holds them: their pid is a zombie or was given to
 * another process, or they are empty since a crash. One whose pid is dead PostgreSQL replaces by itself, and safely
 * against a second starter. Should this race with one, PostgreSQL's shared memory still lets only one server in.
 */
export async function removeStaleLocks(layout: Layout): Promise<void> {
  for (const file of [join(layout.cluster, 'postmaster.pid'), join(layout.socket, `${SOCKET_NAME}.lock`)]) {
    const pid = Math.abs(Number.parseInt(readText(file) ?? '', 10))
    const stale = pid ? readProcess(pid) && !servesCluster(pid, layout) : isOlderThan(file, 1000)
    if (stale) await rm(file, { force: true })
  }
}

function servesCluster(pid: number, layout: Layout): boolean {
  const found = readProcess(pid)
  if (found?.name !== 'postgres' || found.state === 'Z' || found.state === 'X') return false
  try {
    return readlinkSync(`/proc/${pid}/cwd`) === realpathSync(layout.cluster)
  } catch {
    // Root in a container may not look into another user's process; its command line is public.
    return (readText(`/proc/${pid}/cmdline`) ?? '').split('\0').includes(layout.cluster)
  }
}

function readProcess(pid: number): { name: string; state: string; startTicks: string } | undefined {
  const stat = readText(`/proc/${pid}/stat`)
  if (!stat) return undefined
  const end = stat.lastIndexOf(')') // The name before it may hold blanks and parentheses.
  const fields = stat.slice(end + 2).split(' ')
  return { name: stat.slice(stat.indexOf('(') + 1, end), state: fields[0] ?? '', startTicks: fields[19] ?? '' }
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}

function isOlderThan(path: string, ms: number): boolean {
  const made = statSync(path, { throwIfNoEntry: false })?.mtimeMs
  return made !== undefined && Date.now() - made > ms
}
