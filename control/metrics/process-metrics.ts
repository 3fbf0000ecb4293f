import type { Registry } from './registry.ts'

const DELAY_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5]
/** How often the event loop is asked how late it is, milliseconds: a stall that is longer is never missed. */
const RESOLUTION_MS = 20

/** What the process itself uses, and how late its event loop is. Answers the function that stops the measuring. */
export function measureProcess(registry: Registry): () => void {
  const observed = (type: 'counter' | 'gauge', name: string, help: string, read: () => number) =>
    registry.observed(type, name, help, read)
  observed('gauge', 'process_start_time_seconds', 'When the process was started, since 1970.', () => STARTED)
  observed('counter', 'process_cpu_seconds_total', 'Processor time, user and system.', cpuSeconds)
  observed('gauge', 'process_resident_memory_bytes', 'Memory of the process.', () => process.memoryUsage.rss())
  observed('gauge', 'process_heap_bytes', 'JavaScript heap that is used.', () => process.memoryUsage().heapUsed)
  observed(
    'gauge',
    'process_external_memory_bytes',
    'Memory outside the heap that its objects hold.',
    () => process.memoryUsage().external,
  )

  // A histogram of its own, not the one of perf_hooks: that one is emptied by whoever reads it, and two may scrape.
  const delay = registry.histogram('event_loop_delay_seconds', 'How late the event loop is.', DELAY_SECONDS, [])()
  let due = performance.now() + RESOLUTION_MS
  const timer = setInterval(() => {
    const now = performance.now()
    delay.observe(Math.max(0, now - due) / 1000)
    due = now + RESOLUTION_MS
  }, RESOLUTION_MS)
  timer.unref()
  return () => clearInterval(timer)
}

const STARTED = Math.round(Date.now() / 1000 - process.uptime())

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}
