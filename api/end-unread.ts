import type { Duplex } from 'node:stream'

/** A closed socket with unread input may lose the answer that was written to it. */
const LINGER_MS = 500

/** Behind its answer a connection ends. What else is sent stays with the kernel: read, each piece of it would take memory. */
export function endUnread(socket: Duplex): void {
  if (socket.destroyed) return
  socket.end()
  socket.pause()
  const lingering = setTimeout(() => socket.destroy(), LINGER_MS)
  socket.once('close', () => clearTimeout(lingering))
}
