import type { Command } from 'commander'
import type { AuditRecord } from '../schemas/audit.ts'
import type { SecurityEvent } from '../schemas/security-events.ts'
import { readList } from './api-client.ts'
import { limitOption, onApi } from './api-command.ts'
import { table } from './output.ts'

interface Filter {
  limit: number
  kind?: string
  subject?: string
  since?: string
  until?: string
}

const filtered = (command: Command, subject: string): Command =>
  command
    .option('--kind <kind>', 'of this kind')
    .option('--subject <subject>', subject)
    .option('--since <time>', 'RFC 3339, for instance 2030-01-01T00:00:00Z')
    .option('--until <time>', 'before this time')
    .option(...limitOption)

export function addAudit(program: Command): void {
  onApi<Filter & { principal?: string }>(
    filtered(
      program
        .command('audit')
        .description('who changed what, newest first')
        .option('--principal <name>', 'by this principal'),
      'about this, for instance client:pda-7',
    ),
    async ({ api, out }, { limit, principal, kind, subject, since, until }) => {
      const list = await readList<AuditRecord>(api, '/audit', { principal, kind, subject, since, until }, limit)
      out.show(list, () =>
        table(
          ['at', 'principal', 'address', 'kind', 'subject', 'before', 'after'],
          list.items.map((one) => [one.at, one.principal, one.address, one.kind, one.subject, one.before, one.after]),
          'nothing was changed',
        ),
      )
    },
  )

  onApi<Filter & { severity?: string }>(
    filtered(
      program
        .command('security-events')
        .description('what looked like an attack, newest first')
        .option('--severity <severity>', 'info, warning or critical'),
      'a client, a principal or an address',
    ),
    async ({ api, out }, { limit, severity, kind, subject, since, until }) => {
      const query = { severity, kind, subject, since, until }
      const list = await readList<SecurityEvent>(api, '/security-events', query, limit)
      out.show(list, () =>
        table(
          ['at', 'severity', 'kind', 'subject', 'count', 'address', 'detail'],
          list.items.map((one) => [
            one.firstAt,
            one.severity,
            one.kind,
            one.subject,
            one.count,
            one.address,
            one.detail,
          ]),
          'nothing',
        ),
      )
    },
  )
}
