import { createApp } from '../../app.ts'
import { parseSettings } from '../../schemas/settings.ts'

/** The program behind startServerProcess: prints its addresses as one line of JSON. */
const killAt = process.env.KILL_AT
let left = Number(process.env.KILL_AFTER)
const app = createApp(parseSettings(JSON.parse(process.env.SETTINGS as string)), {
  checkResponses: true,
  passed(point) {
    if (point === killAt && --left === 0) process.kill(process.pid, 'SIGKILL')
  },
})
console.log(JSON.stringify(await app.start()))
process.once('SIGTERM', () => void app.stop().then(() => process.exit(0)))
