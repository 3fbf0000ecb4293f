/**
 * Gives back the memory of what was read, now and not at the next garbage collection, which a thousand sockets that send 64 KiB
 * each would not wait for. Only for a chunk to which nobody refers any more.
 */
export function release(chunk: Buffer): void {
  const { buffer } = chunk
  // A part of a larger buffer is not ours alone.
  if (buffer instanceof ArrayBuffer && buffer.byteLength === chunk.byteLength && !buffer.detached) buffer.transfer(0)
}
