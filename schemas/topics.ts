import type { z } from 'zod'
import { ClientConfig, ClientStatus } from './clients.ts'
import { ClientEvent, DeviceBound, ErrorReply, Report } from './messages.ts'

interface TopicSpec {
  /** Levels below the root; `{name}` stands for one level. */
  pattern: string
  direction: 'to-client' | 'from-client'
  qos: 0 | 1
  retain: boolean
  payload: z.ZodType
}

/** The one table of topics (contract, 3): building, parsing and access control derive from it. */
export const TOPICS = {
  clientCommands: {
    pattern: 'clients/{clientId}/commands',
    direction: 'to-client',
    qos: 1,
    retain: false,
    payload: DeviceBound,
  },
  zoneCommands: {
    pattern: 'zones/{zone}/commands',
    direction: 'to-client',
    qos: 1,
    retain: false,
    payload: DeviceBound,
  },
  broadcastCommands: {
    pattern: 'broadcast/commands',
    direction: 'to-client',
    qos: 1,
    retain: false,
    payload: DeviceBound,
  },
  clientConfig: {
    pattern: 'clients/{clientId}/config',
    direction: 'to-client',
    qos: 1,
    retain: true,
    payload: ClientConfig,
  },
  clientReplies: {
    pattern: 'clients/{clientId}/replies',
    direction: 'to-client',
    qos: 1,
    retain: false,
    payload: ErrorReply,
  },
  clientStatus: {
    pattern: 'clients/{clientId}/status',
    direction: 'from-client',
    qos: 1,
    retain: true,
    payload: ClientStatus,
  },
  commandStatus: {
    pattern: 'clients/{clientId}/commands/{commandId}/status',
    direction: 'from-client',
    qos: 1,
    retain: false,
    payload: Report,
  },
  clientEvent: {
    pattern: 'clients/{clientId}/events/{type}',
    direction: 'from-client',
    qos: 1,
    retain: false,
    payload: ClientEvent,
  },
} as const satisfies Record<string, TopicSpec>

export type TopicName = keyof typeof TOPICS
export type TopicParams = Partial<Record<'clientId' | 'zone' | 'commandId' | 'type', string>>
export interface ParsedTopic {
  name: TopicName
  spec: TopicSpec
  params: TopicParams
}

/** Commands are answered for by the ledger, so a subscription to them must be able to acknowledge. */
export const COMMAND_TOPICS: readonly TopicName[] = ['clientCommands', 'zoneCommands', 'broadcastCommands']

const LEVELS = Object.entries(TOPICS).map(([name, spec]) => ({
  name: name as TopicName,
  spec: spec as TopicSpec,
  levels: spec.pattern.split('/'),
}))

/** The full topic, for instance `signalbox/v1/clients/p1/commands`. Throws on a missing parameter. */
export function buildTopic(root: string, name: TopicName, params: TopicParams = {}): string {
  const path = TOPICS[name].pattern.replace(/\{(\w+)\}/g, (_, key: keyof TopicParams) => {
    const value = params[key]
    if (value === undefined) throw new Error(`topic ${name} needs ${key}`)
    return value
  })
  return `${root}/${path}`
}

/** The table's row for a topic without wildcards, or undefined if it is none of ours. */
export function parseTopic(root: string, topic: string): ParsedTopic | undefined {
  if (!topic.startsWith(`${root}/`)) return undefined
  const levels = topic.slice(root.length + 1).split('/')
  for (const row of LEVELS) {
    const params = matchLevels(row.levels, levels)
    if (params) return { name: row.name, spec: row.spec, params }
  }
  return undefined
}

function matchLevels(pattern: string[], levels: string[]): TopicParams | undefined {
  if (pattern.length !== levels.length) return undefined
  // Most patterns are told apart by a word: what the others stand for is looked at only then.
  if (!pattern.every((part, index) => part === levels[index] || part.startsWith('{'))) return undefined
  const params: TopicParams = {}
  for (let index = 0; index < pattern.length; index++) {
    const part = pattern[index] as string
    if (part.startsWith('{')) params[part.slice(1, -1) as keyof TopicParams] = levels[index] as string
  }
  return params
}
