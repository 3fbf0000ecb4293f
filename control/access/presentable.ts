import { withoutSecrets } from '../../schemas/secrets.ts'

/** What a stranger sent, as a line that PostgreSQL keeps and a terminal can show; keys are left out wherever they are. */
export const presentable = (text: string, length: number): string =>
  withoutSecrets(text)
    .replace(/\p{Cc}/gu, '?')
    .slice(0, length)
    .toWellFormed()
