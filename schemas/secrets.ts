/** A client key, an API token, a session's cookie or an enrolment code, wherever it is in a text. */
const SECRET = /(sb[ekst])_[A-Za-z0-9_-]+/gi

/** A text that may be kept and shown: whoever mixed up his user name and his key has not published it. */
export const withoutSecrets = (text: string): string => text.replace(SECRET, '$1_…')
