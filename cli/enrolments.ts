import type { Command } from 'commander'
import { renderUnicodeCompact } from 'uqr'
import { type CreatedEnrolment, type Enrolment, formatEnrolmentLink } from '../schemas/enrolments.ts'
import { path, readList } from './api-client.ts'
import { limitOption, listOption, onApi, within } from './api-command.ts'
import { UsageError } from './failures.ts'
import { fields, say, table } from './output.ts'

interface CreateOptions {
  name?: string
  zones?: string[]
  idPrefix?: string
  maxUses?: number
  ttl?: number
  deviceUrl?: string
  invert?: true
}

export function addEnrolments(program: Command): void {
  const enrolments = program.command('enrolments').description('codes with which new devices obtain their id and key')

  onApi<CreateOptions>(
    enrolments
      .command('create')
      .description('a code as a link and as a QR code, which are shown once')
      .option('--name <text>', 'what it is for')
      .option('--zones <zones>', 'A,B: the zones that its devices are put in', listOption)
      .option('--id-prefix <text>', 'how the ids of its devices begin')
      .option('--max-uses <n>', 'how many devices (default: 1)', within(1, 100_000))
      .option(
        '--ttl <seconds>',
        'how long it works (default: ENROLMENT_TTL_SECONDS of the server)',
        within(1, 31_536_000),
      )
      .option('--device-url <url>', 'where devices reach the API, for the link (default: --url)')
      .option('--invert', 'draw the QR code for a terminal with a light background'),
    async ({ api, out, target }, { name, zones, idPrefix, maxUses, ttl, deviceUrl = target.url, invert = false }) => {
      if (!URL.canParse(deviceUrl) || !/^https?:$/.test(new URL(deviceUrl).protocol) || /[#?]/.test(deviceUrl)) {
        throw new UsageError(`--device-url: ${deviceUrl} is no http:// or https:// address`)
      }
      const body = { name, zones, idPrefix, maxUses, ttlSeconds: ttl }
      const created = await api<CreatedEnrolment>('POST', '/enrolments', body)
      const link = formatEnrolmentLink({ url: deviceUrl, code: created.code })
      if (new URL(deviceUrl).protocol === 'http:') say('http: whoever is on the way can read the code and the key')
      out.show({ ...created, link }, () =>
        // Dark terminals show what is printed as light; a border of 4 modules is the standard's quiet zone.
        [fields(shown(created.enrolment)), renderUnicodeCompact(link, { ecc: 'M', border: 4, invert }), link].join(
          '\n\n',
        ),
      )
    },
  )

  onApi<{ limit: number }>(
    enrolments
      .command('list')
      .description('those that were not revoked')
      .option(...limitOption),
    async ({ api, out }, { limit }) => {
      const list = await readList<Enrolment>(api, '/enrolments', {}, limit)
      out.show(list, () =>
        table(
          ['id', 'name', 'zones', 'id prefix', 'uses', 'expires', 'created by'],
          list.items.map((one) => [
            one.id,
            one.name,
            one.zones,
            one.idPrefix,
            `${one.uses} of ${one.maxUses}`,
            one.expiresAt,
            one.createdBy,
          ]),
          'no enrolments',
        ),
      )
    },
  )

  onApi(
    enrolments.command('revoke').description('its code stops working; its devices stay').argument('<id>'),
    async ({ api, out }, _, id) => {
      await api('DELETE', path`/enrolments/${id}`)
      out.show({ id, revoked: true }, () => `${id} is revoked`)
    },
  )
}

const shown = ({ uses: _, ...enrolment }: Enrolment) => enrolment
