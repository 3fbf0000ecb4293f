/** A copy that lasts: what Node gives small Buffers is a part of a slab, and all of that lives as long as one of its parts. */
export function unpooled(bytes: Uint8Array): Buffer {
  const own = Buffer.allocUnsafeSlow(bytes.length)
  own.set(bytes)
  return own
}
