import { createFleet, type FleetOrders } from './fleet.ts'

export interface FleetLoad {
  /** Resolves when the last device has its SUBACK. */
  connect(): Promise<void>
  /** Throws if a connection was lost. */
  check(): void
}

/** Devices that are connected and have nothing to do. */
export function create(orders: FleetOrders): FleetLoad {
  const fleet = createFleet(orders, (device) => {
    throw new Error(`${device.account.id} got a command that nobody sent`)
  })
  return { connect: () => fleet.connect(), check: () => fleet.check() }
}
