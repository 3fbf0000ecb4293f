/** As the server makes them (schemas/clients.ts, schemas/principals.ts). */
const SECRET = /sb[a-z]_([A-Za-z0-9_-]{43})(?![A-Za-z0-9_-])/g
/** What a secret may be a part of. */
const RUN = /[A-Za-z0-9_-]{20,}/g

/** Every key and token that this test file has seen or chosen, without its prefix: cut off, it is as much of a leak. By length. */
const known = new Map<number, Set<string>>()

/** Remembers a secret that a test chose itself. */
export function learnSecret(secret: string): void {
  const random = secret.slice(4)
  const ofLength = known.get(random.length) ?? new Set()
  known.set(random.length, ofLength.add(random))
}

/** Remembers every secret in an answer: that is where they are shown, once. */
export function learnSecrets(answer: string): void {
  for (const [secret] of answer.matchAll(SECRET)) learnSecret(secret)
}

/** Throws if a text that was meant to be read by somebody has a secret in it; the error names where, and not the secret. */
export function refuseSecrets(text: string, where: string): void {
  for (const { 0: run, index } of text.matchAll(RUN)) {
    if (!holdsSecret(run)) continue
    const line = text.slice(text.lastIndexOf('\n', index) + 1, index)
    throw new Error(`${where} has a key or a token in it, behind: ${line.slice(-200)}`)
  }
}

function holdsSecret(run: string): boolean {
  for (const [length, secrets] of known) {
    for (let from = 0; from + length <= run.length; from++) if (secrets.has(run.slice(from, from + length))) return true
  }
  return false
}
