import type { LimitState } from '../schemas/errors.ts'

/**
 * The fields of draft-ietf-httpapi-ratelimit-headers-11, one item per limit: the policy (quota `q`, window `w` in seconds) and
 * how it stands (remaining `r`, seconds `t` until it is whole again).
 */
export function rateLimitHeaders(limits: LimitState[]): Record<string, string> {
  if (limits.length === 0) return {}
  const policies = limits.map(
    ({ name, quota, windowSeconds }) =>
      `"${name}";q=${quota}${windowSeconds === undefined ? '' : `;w=${windowSeconds}`}`,
  )
  const states = limits.map(({ name, remaining, resetSeconds }) => `"${name}";r=${remaining};t=${resetSeconds}`)
  return { 'RateLimit-Policy': policies.join(', '), RateLimit: states.join(', ') }
}
