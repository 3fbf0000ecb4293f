import { execFileSync } from 'node:child_process'
import { renameSync } from 'node:fs'
import { join } from 'node:path'

/** Makes a certificate for loopback, signed by itself, and puts it in place as a renewal would: `server.crt`, `server.key`. */
export function issueCertificate(folder: string, name: string): void {
  const file = (of: string): string => join(folder, of)
  execFileSync(
    'openssl',
    [
      ...'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2'.split(' '),
      ...['-keyout', file('new.key'), '-out', file('new.crt'), '-subj', `/CN=${name}`],
      ...['-addext', 'subjectAltName=IP:127.0.0.1,IP:127.0.0.2,DNS:localhost'],
    ],
    { stdio: 'ignore' },
  )
  renameSync(file('new.crt'), file('server.crt'))
  renameSync(file('new.key'), file('server.key'))
}

/** The settings of a server that has the folder's certificate, its TLS listeners on free ports. */
export const tlsSettings = (folder: string) => ({
  TLS_CERT_FILE: join(folder, 'server.crt'),
  TLS_KEY_FILE: join(folder, 'server.key'),
  HTTPS_PORT: 0,
  MQTT_TLS_PORT: 0,
  MQTT_WSS_PORT: 0,
})
