import { writeFileSync } from 'node:fs'
import { createProgram } from '../cli/program.ts'

type Command = ReturnType<typeof createProgram>

const GUIDE = `# Command line

Made by \`npm run docs:cli\` from the program itself.

From a clone: \`npx signalbox …\`, or \`node_modules/.bin/node cli/main.ts …\`. Every command explains itself with \`--help\`.

- Commands that talk to a server find it by \`--url\` or \`SIGNALBOX_URL\` (default \`http://127.0.0.1:3000\`), and themselves by \`--token\` or \`SIGNALBOX_TOKEN\`. The variable is better: no process list shows it.
- Settings, \`SIGNALBOX_TOKEN\` and \`SIGNALBOX_CLIENT_KEY\` may also be files of these names in the folder that \`CREDENTIALS_DIRECTORY\` names, as systemd and container engines hand over secrets. A variable that is set counts for more.
- Data is on stdout, progress and faults on stderr. On a terminal progress is a bar; elsewhere, or with \`NO_COLOR\`, it is plain lines: no colour, no cursor movement.
- \`--json\` prints one JSON document on stdout and nothing else: what the API answered. Lists are \`{items, nextCursor}\`; \`nextCursor\` is \`null\` if these are all. \`watch --json\` prints one event per line.
- Control characters in what devices and people typed are shown escaped (\`\\u001b\`).

## Exit codes

| code | means |
|---|---|
| 0 | done |
| 1 | it did not succeed: with \`--wait\` or \`watch <id>\` not every execution completed; a row was not imported; \`doctor\` or \`demo\` found something broken; a server could not start |
| 2 | wrong usage |
| 3 | the server refused: its code and detail are on stderr |
| 4 | the server is not reachable |
| 130 | interrupted |

What runs until it is stopped (\`serve\`, \`agent\`, \`simulate\`, \`watch\`, \`demo --keep\`) ends with 0 at the first Ctrl-C.

## Examples

\`\`\`sh
export SIGNALBOX_TOKEN=sbt_…                                   # what the server printed at its first start
signalbox clients import fleet.csv > keys.txt                  # id,name,zones (A;B),maxInFlight,metadata.*
signalbox enrolments create --zones A --max-uses 20            # a QR code for new devices: docs/access.md
signalbox send --zone A --action lock --preview                # who would get it
signalbox send --zone A --action lock --wait 60 && echo locked # 0 only if every client completed it
signalbox send --client pda-7 --action pick --payload '{"order":"A-1"}' --wait --json | jq .result
signalbox watch --types client.offline,execution.failed
signalbox simulate --clients 300 --zones A,B,C --duration 60 --json
\`\`\`

\`send\` gives each command an \`Idempotency-Key\`. If the answer is lost it says so, with the key: repeating with \`--idempotency-key\` is safe. \`send --wait\` that is interrupted leaves the command going on.

\`clients import\` registers row by row; a taken id is skipped, and nothing is rolled back. The report on stdout has the new clients' keys, which are shown only there.

\`demo\` starts a server with PostgreSQL inside and eight devices in processes of their own, sends to one, to a zone and to all, cancels one, cuts a zone's network in the middle of a job, and then judges every execution by the devices' own journals and by what they really did. Each run has a directory of its own below \`DATA_DIR/demo\`, so that it always starts clean; the devices' records stay there, and the database too if the proof failed. \`--reset\` first removes what earlier runs left. \`--keep\` leaves everything running until Ctrl-C. \`--nodes 2\` plays it on two servers with one database and a Redis (Debian's \`redis-server\` has to be there), the devices spread over both.

\`simulate\` runs the agent that real devices run, many in one process, one process per core at most, each device with a network of its own that fails by chance. What a device does follows from \`--seed\` and its number. Without \`--journal-dir\` the journals are in memory: at the end of the simulation they are gone, and what was unfinished is \`outcome_unknown\` at the next one.

\`serve --workers 4\` is one server in four processes that share its ports, its database and the embedded PostgreSQL: a process uses one core. A worker that dies is replaced. See [several nodes](operating.md#several-nodes).

\`doctor\` lists every setting with its value and meaning, secrets masked, and tries what a server needs: the ports, a database, a Redis if one is named. The embedded PostgreSQL is tried in a temporary folder, so a running server is left alone.

\`tokens bridge\` makes a principal \`mosquitto\`, a technician, if there is none, and a token for each file that it writes. An existing file is never overwritten: revoke its token, remove it, and write it anew.

Completion: \`source <(signalbox completion bash)\`, the same for zsh, \`signalbox completion fish | source\`.

## Commands
`

/** The text of docs/cli.md, made from the program that parses the command line. */
export function cliDocument(): string {
  return `${GUIDE}\n${createProgram()
    .commands.flatMap((command) => reference(command, 'signalbox'))
    .join('\n')}`
}

/** A section for each command that does something; one that only has subcommands is a heading for them. */
function reference(command: Command, parent: string): string[] {
  const name = `${parent} ${command.name()}`
  const args = command.registeredArguments
    .map((one) => (one.required ? ` <${one.name()}>` : ` [${one.name()}]`))
    .join('')
  const options = command.options.map(
    ({ flags, description, defaultValue, argChoices, mandatory }) =>
      `| \`${flags}\` | ${escaped([description, argChoices?.join(', '), mandatory ? 'required' : '', defaultText(defaultValue)].filter(Boolean).join('; '))} |`,
  )
  const table = options.length > 0 ? ['| option | |', '|---|---|', ...options, ''] : []
  const section = [`### \`${name}${args}\``, '', `${escaped(command.description())}.`, '', ...table]
  return [...section, ...command.commands.flatMap((child) => reference(child, name))]
}

const escaped = (text: string): string => text.replaceAll('|', '\\|').replaceAll('<', '\\<')

function defaultText(value: unknown): string {
  if (value === undefined) return ''
  return `default ${typeof value === 'object' ? Object.values(value as object).join('..') : value}`
}

if (import.meta.main) writeFileSync(new URL('./cli.md', import.meta.url), cliDocument())
