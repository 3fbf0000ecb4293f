import { spawnSync } from 'node:child_process'

/**
 * Whether a program of the system is there. Without it its suite is skipped and says how to get it; in CI a missing one fails.
 */
export function hasTool(program: string, debianPackage: string): boolean {
  const found = spawnSync('sh', ['-c', `command -v ${program}`]).status === 0
  if (found) return true
  const advice = `${program} is missing: apt-get install ${debianPackage}`
  if (process.env.CI) throw new Error(advice)
  console.warn(`skipped: ${advice}`)
  return false
}
