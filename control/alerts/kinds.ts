import type { AlertKind, Severity } from '../../schemas/alerts.ts'

interface Kind {
  severity: Severity
  /** What `count` says: how many there are now, or how many there were since the alert was opened. */
  counts: 'now' | 'since opened'
  /** Acknowledging ends it. The others end when what they say is not so any more. */
  endsWhenAcknowledged: boolean
}

/** What is particular about each kind of alert; what each says is in sightings.ts. */
export const KINDS: Record<AlertKind, Kind> = {
  outcome_unknown: { severity: 'critical', counts: 'now', endsWhenAcknowledged: false },
  // A failure is over when it happens: that somebody has seen it is all that can end it.
  command_failed: { severity: 'warning', counts: 'since opened', endsWhenAcknowledged: true },
  client_lost: { severity: 'warning', counts: 'now', endsWhenAcknowledged: false },
  client_refused: { severity: 'warning', counts: 'since opened', endsWhenAcknowledged: false },
  security_event: { severity: 'critical', counts: 'since opened', endsWhenAcknowledged: false },
  feed_lag: { severity: 'critical', counts: 'now', endsWhenAcknowledged: false },
}

export const ENDING_WHEN_ACKNOWLEDGED = (Object.keys(KINDS) as AlertKind[]).filter(
  (kind) => KINDS[kind].endsWhenAcknowledged,
)
