import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { BootClock } from '../../../agent/boot-clock.ts'
import type { AgentLog } from '../../../agent/log.ts'
import type { CancelMessage, CommandMessage } from '../../../schemas/messages.ts'

/** Command ids in order of creation. */
export const idOf = (n: number): string => `0198c0de-0000-7000-8000-${String(n).padStart(12, '0')}`

export function command(n: number, overrides: Partial<CommandMessage> = {}): CommandMessage {
  return {
    type: 'command',
    id: idOf(n),
    attempt: 1,
    action: 'work',
    payload: { n },
    priority: 5,
    target: { kind: 'client', clientId: 'p1' },
    createdAt: '2025-01-01T00:00:00.000Z',
    sentAt: '2025-01-01T00:00:00.000Z',
    expiresInSeconds: 600,
    timeoutSeconds: 60,
    ...overrides,
  }
}

export function cancelOf(n: number, overrides: Partial<CancelMessage> = {}): CancelMessage {
  return { type: 'cancel', id: idOf(n), attempt: 1, ...overrides }
}

export interface TestLog extends AgentLog {
  lines: { level: string; message: string; fields: Record<string, unknown> }[]
}

export function testLog(): TestLog {
  const lines: TestLog['lines'] = []
  const at = (level: string) => (fields: object, message: string) =>
    void lines.push({ level, message, fields: fields as Record<string, unknown> })
  return { lines, debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}

export interface TestClock extends BootClock {
  ms: number
}

export function testClock(bootId = 'boot-1', ms = 1000): TestClock {
  return {
    bootId,
    ms,
    now() {
      return this.ms
    },
  }
}

/** Repeats `check` until it no longer throws and returns its value; after 5 s its error is the test's. */
export async function until<T>(check: () => T): Promise<T> {
  for (let left = 1000; ; left--) {
    try {
      return check()
    } catch (error) {
      if (left === 0) throw error
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }
}

/** A directory of its own that `Symbol.dispose` removes. */
export function temporaryDirectory(): { path: string; file: (name: string) => string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), 'signalbox-agent-'))
  return {
    path,
    file: (name) => join(path, name),
    [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }),
  }
}
