import { readFile } from 'node:fs/promises'
import { createSecureContext, type Server } from 'node:tls'
import type { Logger } from 'pino'

/** The server's certificate and its key, read again while it runs. */
export interface Certificate {
  /** What a TLS server begins with; the handshake has the time that a CONNECT has. */
  readonly options: { cert: Buffer; key: Buffer; handshakeTimeout: number }
  /** New connections of this server use the newest pair; the ones that are open keep theirs. */
  renews(server: Server): void
  stop(): void
}

interface CertificateSettings {
  TLS_CERT_FILE?: string | undefined
  TLS_KEY_FILE?: string | undefined
  TLS_RELOAD_SECONDS: number
  MQTT_CONNECT_TIMEOUT_SECONDS: number
}

/**
 * Reads the pair and looks at the files again every TLS_RELOAD_SECONDS; undefined if none is set. A pair that does not fit, as while it is being replaced, is
 * logged and not used. Throws if the first one cannot be.
 */
export async function openCertificate(settings: CertificateSettings, log: Logger): Promise<Certificate | undefined> {
  const { TLS_CERT_FILE: cert, TLS_KEY_FILE: key } = settings
  if (cert === undefined || key === undefined) return undefined
  const files = { cert, key }
  const servers: Server[] = []
  let pair = await readPair(files).catch((error: Error) => {
    throw new Error(`TLS_CERT_FILE, TLS_KEY_FILE: ${error.message}`)
  })
  let complained = ''

  async function look(): Promise<void> {
    try {
      const read = await readPair(files)
      complained = ''
      if (read.cert.equals(pair.cert) && read.key.equals(pair.key)) return
      pair = read
      for (const server of servers) server.setSecureContext(read)
      log.info({ file: files.cert }, 'the new certificate is in use')
    } catch (error) {
      const reason = (error as Error).message
      if (reason !== complained) log.error({ reason, ...files }, 'the new certificate is not usable; the old one stays')
      complained = reason
    }
  }
  const timer = setInterval(() => void look(), settings.TLS_RELOAD_SECONDS * 1000)
  timer.unref()

  return {
    get options() {
      return { ...pair, handshakeTimeout: settings.MQTT_CONNECT_TIMEOUT_SECONDS * 1000 }
    },
    renews: (server) => void servers.push(server),
    stop: () => clearInterval(timer),
  }
}

async function readPair(files: { cert: string; key: string }): Promise<{ cert: Buffer; key: Buffer }> {
  const [cert, key] = await Promise.all([readFile(files.cert), readFile(files.key)])
  createSecureContext({ cert, key })
  return { cert, key }
}
