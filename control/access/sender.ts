import { plainAddress } from './actor.ts'

/** What counts as one sender: an IPv4 address, or the 64 bits of an IPv6 address that a provider hands out as one. */
export function senderOf(from: string): string {
  const address = plainAddress(from)
  if (!address.includes(':')) return address
  const [before = '', after] = address.replace(/%.*$/, '').split('::')
  const head = before === '' ? [] : before.split(':')
  if (after === undefined) return `${head.slice(0, 4).join(':')}::/64`
  const tail = after === '' ? [] : after.split(':')
  const zeros: string[] = Array(Math.max(0, 8 - head.length - tail.length)).fill('0')
  return `${[...head, ...zeros, ...tail].slice(0, 4).join(':')}::/64`
}
