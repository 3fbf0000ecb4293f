import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'

interface Instruction {
  keyword: string
  flags: Record<string, string>
  /** What is behind keyword and flags. */
  rest: string
}

/** What a Dockerfile leaves behind, in a folder that stands for `/`. */
export interface Image {
  root: string
  workdir: string
  env: Record<string, string>
  user: string
  /** ENTRYPOINT and CMD. */
  command: string[]
  healthcheck: string[]
}

export function parseDockerfile(text: string): Instruction[] {
  const lines = text.replace(/^#.*\n/gm, '').replace(/\\\n\s*/g, ' ')
  return lines
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => {
      const [, keyword = '', flags = '', rest = ''] = /^([A-Z]+)\s+((?:--\S+\s+)*)(.*)$/.exec(line) ?? []
      if (keyword === '') throw new Error(`no instruction: ${line}`)
      const pairs = flags.trim().split(/\s+/).filter(Boolean)
      return {
        keyword,
        flags: Object.fromEntries(pairs.map((flag) => flag.slice(2).split('=') as [string, string])),
        rest: rest.trim(),
      }
    })
}

/** Top-level names that `.dockerignore` lets through: everything is out but what is named. */
export function inContext(text: string): string[] {
  const [first, ...rest] = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
  if (first !== '*' || rest.some((line) => !/^![^/*]+$/.test(line))) throw new Error('.dockerignore: not * and names')
  return rest.map((line) => line.slice(1))
}

/**
 * Does what the Dockerfile says, instruction by instruction, in folders that stand for the stages: COPY from the context or a
 * stage, RUN by the shell, with `bin` in front of the PATH as what the base image has.
 */
export function build(folder: string, bin: string): Image {
  const context = inContext(readFileSync('.dockerignore', 'utf8'))
  const stages = new Map<string, Image>()
  let image: Image | undefined
  const inside = (path: string): string => join((image as Image).root, resolve((image as Image).workdir, path))
  const steps: Record<string, (step: Instruction, image: Image) => void> = {
    WORKDIR({ rest }, now) {
      now.workdir = resolve(now.workdir, rest)
      mkdirSync(inside('.'), { recursive: true })
    },
    COPY({ flags, rest }) {
      const names = rest.split(/\s+/)
      const target = names.pop() as string
      for (const name of names) {
        const stage = flags.from === undefined ? undefined : stages.get(flags.from)
        if (flags.from !== undefined && !stage) throw new Error(`no stage ${flags.from}`)
        if (!stage && !context.includes(name)) throw new Error(`COPY ${name}: .dockerignore keeps it out`)
        const to = target.endsWith('/') ? join(inside(target), basename(name)) : inside(target)
        cpSync(stage ? join(stage.root, name) : name, to, { recursive: true, verbatimSymlinks: true })
      }
    },
    RUN({ rest }, now) {
      // What `npm ci` of this tree has brought is not asked for again.
      const own = { npm_config_prefer_offline: 'true' }
      const env = { ...process.env, ...own, ...now.env, PATH: `${bin}:${process.env.PATH}` }
      execFileSync('sh', ['-c', rest], { cwd: inside('.'), env, stdio: 'pipe' })
    },
    ENV({ rest }, now) {
      for (const pair of rest.split(/\s+/)) {
        const [, name, value] = /^(\w+)=(.*)$/.exec(pair) as unknown as [string, string, string]
        now.env[name] = value
      }
    },
    USER({ rest }, now) {
      now.user = rest
    },
    ENTRYPOINT({ rest }, now) {
      now.command = JSON.parse(rest)
    },
    CMD({ rest }, now) {
      now.command.push(...JSON.parse(rest))
    },
    HEALTHCHECK({ rest }, now) {
      now.healthcheck = JSON.parse(rest.replace(/^CMD\s+/, ''))
    },
    EXPOSE() {},
  }
  for (const step of parseDockerfile(readFileSync('deploy/Dockerfile', 'utf8'))) {
    if (step.keyword === 'FROM') {
      const name = / AS (\S+)$/.exec(step.rest)?.[1] ?? 'last'
      image = { root: join(folder, name), workdir: '/', env: {}, user: 'root', command: [], healthcheck: [] }
      stages.set(name, image)
      continue
    }
    const act = steps[step.keyword]
    if (!act || !image) throw new Error(`${step.keyword}: not known here`)
    act(step, image)
  }
  return image as Image
}
