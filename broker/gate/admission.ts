/** A socket before its login is through. */
export interface Entrant {
  /** Who it counts for: an address. */
  readonly sender: string
  /** It is its turn: it may be read from. */
  start(): void
  /** There is no room for it, or its turn did not come in time. */
  turnAway(why: string): void
}

export interface AdmissionLimits {
  /** Sockets at once, whatever their state. */
  total: number
  /** Of one sender, read from before their login is through. */
  unauthenticated: number
  /** Of one sender, waiting for that. */
  waiting: number
  /** The longest wait. */
  waitMs: number
}

/**
 * Who may be read from. Only sockets before their login count for their address, so that a whole fleet behind one address can be
 * connected; when all of it comes back at once, the sockets beyond the limit wait, unread, for their turn: none is turned away
 * that would only come again.
 */
export interface Admission {
  enter(entrant: Entrant): void
  /** Its login is through, or has failed: it counts for its sender no longer. */
  settled(entrant: Entrant): void
  /** Its socket is closed. */
  left(entrant: Entrant): void
  /** Turns away who has waited too long. */
  expire(): void
}

interface Sender {
  reading: Set<Entrant>
  /** Since when; in the order of arrival. */
  waiting: Map<Entrant, number>
}

export function createAdmission(limits: AdmissionLimits, now: () => number): Admission {
  const senders = new Map<string, Sender>()
  const inside = new Set<Entrant>()

  function senderOf(name: string): Sender {
    let sender = senders.get(name)
    if (!sender) {
      sender = { reading: new Set(), waiting: new Map() }
      senders.set(name, sender)
    }
    return sender
  }

  function settled(entrant: Entrant): void {
    const sender = senders.get(entrant.sender)
    if (!sender) return
    sender.waiting.delete(entrant)
    if (!sender.reading.delete(entrant)) return
    const [next] = sender.waiting.keys()
    if (next) {
      sender.waiting.delete(next)
      sender.reading.add(next)
      next.start()
    } else if (sender.reading.size === 0) senders.delete(entrant.sender)
  }

  return {
    enter(entrant) {
      if (inside.size >= limits.total) return entrant.turnAway('the server has as many connections as it may')
      const sender = senderOf(entrant.sender)
      const mustWait = sender.reading.size >= limits.unauthenticated
      if (mustWait && sender.waiting.size >= limits.waiting)
        return entrant.turnAway('too many of its address wait already')
      inside.add(entrant)
      if (mustWait) sender.waiting.set(entrant, now())
      else {
        sender.reading.add(entrant)
        entrant.start()
      }
    },
    settled,
    left(entrant) {
      if (inside.delete(entrant)) settled(entrant)
    },
    expire() {
      for (const sender of senders.values()) {
        for (const [entrant, since] of sender.waiting) {
          if (now() - since <= limits.waitMs) break
          sender.waiting.delete(entrant)
          entrant.turnAway('its turn did not come in time')
        }
      }
    },
  }
}
