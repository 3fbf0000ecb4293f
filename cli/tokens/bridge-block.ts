interface Bridge {
  name: string
  mqtt: URL
  root: string
  ca: string | undefined
  login: { principal: string; token: string }
  /** Its client id at the server: no client's can have a `~`. */
  id: string
}

const DEFAULT_PORTS: Record<string, string> = { 'mqtt:': '1883', 'mqtts:': '8883' }
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/
const ROOT = /^[A-Za-z0-9._-]+(\/[A-Za-z0-9._-]+)*$/

/** Why no connection can be made of it. What is written into the file must not be able to end a line. */
export function bridgeFault(given: { name: string; mqtt: string; root: string; ca?: string }): string | undefined {
  const { name, mqtt, root, ca } = given
  if (!NAME.test(name)) return `--name ${name}: letters, digits, ".", "_" and "-"`
  if (!ROOT.test(root)) return `--root ${root}: topic levels of letters, digits, ".", "_" and "-"`
  const url = URL.canParse(mqtt) ? new URL(mqtt) : undefined
  if (!url?.hostname || !(url.protocol in DEFAULT_PORTS)) return `--mqtt ${mqtt}: mqtt://HOST:PORT or mqtts://HOST:PORT`
  if (url.username || url.password) return '--mqtt: the login is written by this command'
  if (ca !== undefined && url.protocol !== 'mqtts:') return '--ca: only with mqtts://'
  if (ca !== undefined && /\p{Cc}/u.test(ca)) return '--ca: control characters'
  return undefined
}

/** The connection as Mosquitto's configuration has it; what differs from its defaults says why. */
export function bridgeBlock({ name, mqtt, root, ca, login, id }: Bridge): string {
  // What is behind the last colon is the port: Mosquitto knows no brackets.
  const host = mqtt.hostname.replace(/^\[|\]$/g, '')
  const port = mqtt.port || DEFAULT_PORTS[mqtt.protocol]
  const tls = ca === undefined ? 'bridge_capath /etc/ssl/certs' : `bridge_cafile ${ca}`
  return `# Written by \`signalbox tokens bridge\`. It has a token in it: revoke that one before you throw this file away.
connection ${name}
address ${host}:${port}
${mqtt.protocol === 'mqtts:' ? `# The server is who its certificate says it is.\n${tls}\n` : ''}
# Whoever shows a token gives its principal as the user name, and a client id that is no client's: this one has a "~".
remote_username ${login.principal}
remote_password ${login.token}
remote_clientid ${id}

# Everything comes in and nothing goes out. QoS 0, since the server queues nothing for a bridge that is away: what it brings
# while it is there it brings over TCP.
topic ${root}/# in 0

# Default: false. A session that is kept would be of no use to it: it subscribes anew whenever it connects.
cleansession true

# The default, and needed: with it the server leaves the retain flag on what it sends, so that a status that changes or goes
# also does so here.
try_private true

# Default: false. Whether it is connected is told on this side only: the server lets nobody publish that, a will neither.
notifications_local_only true

# Default: up to 30 s. It is back a few seconds after the server is.
restart_timeout 1 5

# Default: 60. A server that has gone without a word is noticed within half a minute.
keepalive_interval 15
`
}
