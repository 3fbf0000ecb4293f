import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { parseSettings, Settings } from '../../schemas/settings.ts'
import { hasTool } from '../support/tools.ts'

// Each test starts processes; on a busy machine that takes its time.
vi.setConfig({ testTimeout: 90_000 })

const run = promisify(execFile)
const SECRETS = { POSTGRES_PASSWORD: 'p4ssw0rdOfThisTest', ADMIN_TOKEN: 'sbt_0123456789abcdefghijkl' }

interface Service {
  image?: string
  build?: { context: string; dockerfile: string }
  environment?: Record<string, string>
  depends_on?: Record<string, { condition: string }>
  healthcheck?: { test: string[] }
  networks: Record<string, unknown>
  ports?: (string | { host_ip: string; published: string | number; target: number })[]
  profiles?: string[]
  volumes?: (string | { source: string; target: string })[]
  read_only?: boolean
  cap_drop?: string[]
}
interface Compose {
  services: Record<string, Service>
  networks: Record<string, { internal?: boolean } | null>
  volumes: Record<string, unknown>
}

describe.skipIf(!hasTool('docker-compose', 'docker-compose python3-yaml'))('compose.yaml', () => {
  const folder = mkdtempSync(join(tmpdir(), 'signalbox-compose-'))
  let compose: Compose
  let services: Record<string, Service>

  /** `docker-compose config`: it needs no engine. The environment is the file's alone. */
  async function config(values: Record<string, string>, ...more: string[]): Promise<string> {
    const file = join(folder, `${Object.keys(values).length}.env`)
    const example = readFileSync('deploy/env.example', 'utf8').replaceAll(
      /^(\w+)=$/gm,
      (_, name: string) => `${name}=${values[name] ?? ''}`,
    )
    writeFileSync(file, example)
    const env = { PATH: process.env.PATH, HOME: folder }
    const args = ['-f', 'deploy/compose.yaml', '--env-file', file, ...more]
    return (await run('docker-compose', args, { env })).stdout
  }

  beforeAll(async () => {
    const yaml = join(folder, 'config.yaml')
    // The newer docker-compose leaves out what no active profile has.
    writeFileSync(yaml, await config(SECRETS, '--profile', 'nodes', '--profile', 'single', 'config'))
    const asJson = 'import json,sys,yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))'
    compose = JSON.parse((await run('/usr/bin/python3', ['-c', asJson, yaml])).stdout)
    services = compose.services
  })
  afterAll(() => rmSync(folder, { recursive: true }))

  const of = (name: string): Service => services[name] as Service
  const nodes = (): Service[] => ['signalbox', 'node-1', 'node-2'].map(of)

  test('one server, or two behind a balancer, by the profile', () => {
    expect(Object.keys(services).sort()).toEqual(['balancer', 'node-1', 'node-2', 'postgres', 'redis', 'signalbox'])
    expect(of('signalbox').profiles).toEqual(['single'])
    for (const name of ['node-1', 'node-2', 'balancer']) expect(of(name).profiles).toEqual(['nodes'])
    expect(readFileSync('deploy/env.example', 'utf8')).toMatch(/^COMPOSE_PROFILES=single$/m)
  })

  test('what is set are settings of the server, and they are valid', () => {
    const known = [...Object.keys(Settings.shape), 'REDIS_URL']
    for (const { environment = {} } of nodes()) {
      expect(Object.keys(environment).filter((name) => !known.includes(name))).toEqual([])
      expect(parseSettings(environment).DATABASE_URL).toBe(
        `postgres://signalbox:${SECRETS.POSTGRES_PASSWORD}@postgres:5432/signalbox`,
      )
      expect(parseSettings(environment).ADMIN_TOKEN).toBe(SECRETS.ADMIN_TOKEN)
      expect(environment.REDIS_URL).toBe('redis://redis:6379')
    }
  })

  test('secrets come from the file that git does not keep, and without the password nothing starts', async () => {
    const text = readFileSync('deploy/compose.yaml', 'utf8') + readFileSync('deploy/env.example', 'utf8')
    expect(text).not.toMatch(/sbt_[A-Za-z0-9]{20}/)
    expect(text).toMatch(/^POSTGRES_PASSWORD=$/m)
    const { stdout } = await run('git', ['check-ignore', 'deploy/.env'])
    expect(stdout.trim()).toBe('deploy/.env')
    await expect(config({}, 'config')).rejects.toThrow('is missing in deploy/.env')
  })

  test('everything says whether it is well, and a server waits for what it needs', () => {
    // A server's check is in its image.
    for (const name of ['postgres', 'redis', 'balancer']) expect(of(name).healthcheck?.test[0]).toBe('CMD')
    for (const { depends_on: needs = {}, build } of nodes()) {
      expect(needs.postgres?.condition).toBe('service_healthy')
      expect(needs.redis?.condition).toBe('service_healthy')
      expect(build).toMatchObject({ context: process.cwd(), dockerfile: 'deploy/Dockerfile' })
    }
  })

  test('the doors open on loopback alone, and PostgreSQL and Redis have none', () => {
    for (const [name, service] of Object.entries(services)) {
      const shown = (service.ports ?? []).map((port) =>
        typeof port === 'string' ? port.replace(/\/tcp$/, '') : `${port.host_ip}:${port.published}:${port.target}`,
      )
      const doors = ['127.0.0.1:3000:3000', '127.0.0.1:1883:1883', '127.0.0.1:8083:8083']
      expect(shown, name).toEqual(['signalbox', 'balancer'].includes(name) ? doors : [])
    }
    for (const name of ['postgres', 'redis']) expect(Object.keys(of(name).networks)).toEqual(['back'])
    expect(compose.networks.back).toMatchObject({ internal: true })
  })

  test('only PostgreSQL keeps anything; the rest may write nowhere and needs no capability', () => {
    expect(Object.keys(compose.volumes)).toEqual(['postgres'])
    expect(JSON.stringify(of('postgres').volumes)).toContain('/var/lib/postgresql')
    expect(of('postgres').image).toBe('postgres:18')
    for (const service of [...nodes(), of('balancer')]) {
      expect(service).toMatchObject({ read_only: true, cap_drop: ['ALL'] })
    }
    expect(of('redis').read_only).toBe(true)
  })
})
