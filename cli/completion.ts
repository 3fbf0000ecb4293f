import { Argument, type Command } from 'commander'

const SHELLS = ['bash', 'zsh', 'fish'] as const
type Shell = (typeof SHELLS)[number]

export function addCompletion(program: Command): void {
  program
    .command('completion')
    .description('a script that lets the shell complete commands and options: source <(signalbox completion bash)')
    .addArgument(new Argument('<shell>', 'which one').choices(SHELLS))
    .action((shell: Shell) => console.log(SCRIPTS[shell](placesOf(program))))
}

/** Where a line can be: `clients list`, and which words may follow there. */
interface Place {
  path: string
  words: { word: string; meaning: string }[]
}

function placesOf(command: Command, path = ''): Place[] {
  const { options, commands } = command
  const words = [
    ...commands.map((child) => ({ word: child.name(), meaning: child.description() })),
    ...options.flatMap(({ long, description }) => (long ? [{ word: long, meaning: description }] : [])),
    { word: '--help', meaning: 'display help' },
  ]
  const children = commands.flatMap((child) => placesOf(child, path ? `${path} ${child.name()}` : child.name()))
  return [{ path, words }, ...children]
}

const SCRIPTS: Record<Shell, (places: Place[]) => string> = { bash, zsh, fish }

const wordList = ({ words }: Place): string => words.map(({ word }) => word).join(' ')
const known = (places: Place[]): string =>
  places
    .filter(({ path }) => path !== '')
    .map(({ path }) => `'${path}'`)
    .join('|')

function bash(places: Place[]): string {
  return `# bash completion for signalbox: source <(signalbox completion bash)
_signalbox() {
  local place= word next words=
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    next="\${place:+$place }$word"
    case "$next" in ${known(places)}) place="$next" ;; esac
  done
  case "$place" in
${places.map((place) => `    '${place.path}') words='${wordList(place)}' ;;`).join('\n')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _signalbox signalbox`
}

function zsh(places: Place[]): string {
  return `#compdef signalbox
# zsh completion for signalbox: source <(signalbox completion zsh)
_signalbox() {
  local place= word next
  for word in "\${(@)words[2,CURRENT-1]}"; do
    next="\${place:+$place }$word"
    case "$next" in (${known(places)}) place="$next" ;; esac
  done
  case "$place" in
${places.map((place) => `    ('${place.path}') compadd -- ${wordList(place)} ;;`).join('\n')}
  esac
  _files
}
compdef _signalbox signalbox`
}

function fish(places: Place[]): string {
  const quoted = (text: string): string => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
  const lines = places.flatMap(({ path, words }) =>
    words.map(({ word, meaning }) => {
      const what = word.startsWith('--') ? `-l ${word.slice(2)}` : `-f -a ${word}`
      return `complete -c signalbox -n ${quoted(`__signalbox_at "${path}"`)} ${what} -d ${quoted(meaning)}`
    }),
  )
  return `# fish completion for signalbox: signalbox completion fish | source
function __signalbox_at
  set -l place ''
  for word in (commandline -opc)[2..]
    set -l next (string trim "$place $word")
    switch $next
      case ${known(places).replaceAll('|', ' ')}
        set place $next
    end
  end
  test "$place" = "$argv[1]"
end
${lines.join('\n')}`
}
