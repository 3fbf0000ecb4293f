import { spawnSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'

/** A disk that can be full: a file takes what is left of it. */
export interface SmallDisk {
  /** Takes all room there is, and whatever becomes free, until `free`. */
  fill(): void
  free(): void
  unmount(): void
}

/** Whoever may not mount in the tree of all may do so in one of its own, if the system lets it make one. */
export const OWN_NAMESPACE = ['unshare', '--user', '--map-root-user', '--mount']

const CHUNKS = [1 << 20, 4096]
const AGAIN_MS = 20

/** Whether this process may mount a disk; otherwise why not. */
export function mayMount(prefix: string[] = []): { yes: boolean; why: string } {
  const [program = '', ...args] = [...prefix, 'sh', '-c', 'd=$(mktemp -d) && mount -t tmpfs none "$d" && umount "$d"']
  const { status, stderr, error } = spawnSync(program, args, { encoding: 'utf8' })
  return { yes: status === 0, why: (error?.message ?? stderr).trim() }
}

export function mountSmallDisk(folder: string, megabytes: number): SmallDisk {
  mkdirSync(folder, { recursive: true })
  run('mount', '-t', 'tmpfs', '-o', `size=${megabytes}m,mode=0700`, 'none', folder)
  const ballast = join(folder, 'ballast')
  let topUp: NodeJS.Timeout | undefined
  return {
    fill() {
      const fd = openSync(ballast, 'a')
      const take = (): void => {
        for (const size of CHUNKS) while (takes(fd, Buffer.alloc(size, 1)));
      }
      take()
      closeSync(fd)
      topUp ??= setInterval(() => this.fill(), AGAIN_MS)
    },
    free() {
      clearInterval(topUp)
      topUp = undefined
      rmSync(ballast, { force: true })
    },
    // Lazily: whoever still has a file open there does not keep it in the tree.
    unmount: () => run('umount', '--lazy', folder),
  }
}

function takes(fd: number, bytes: Buffer): boolean {
  try {
    return writeSync(fd, bytes) === bytes.length
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOSPC') return false
    throw error
  }
}

function run(program: string, ...args: string[]): void {
  const { status, stderr } = spawnSync(program, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${stderr}`)
}
