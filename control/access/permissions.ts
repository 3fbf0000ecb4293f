import { AppError } from '../../schemas/errors.ts'
import type { Principal, Role } from '../../schemas/principals.ts'

/** What may be done, and by which roles. The one table that every door asks. */
const PERMISSIONS = {
  'command:read': ['admin', 'operator', 'technician', 'viewer'],
  'command:create': ['admin', 'operator'],
  'command:cancel': ['admin', 'operator'],
  'client:read': ['admin', 'operator', 'technician', 'viewer'],
  'client:manage': ['admin'],
  // Names, roles and times; no secret is ever read.
  'access:read': ['admin', 'operator', 'technician', 'viewer'],
  'access:manage': ['admin'],
  'action:read': ['admin', 'operator', 'technician', 'viewer'],
  'action:manage': ['admin'],
  'alert:read': ['admin', 'operator', 'technician', 'viewer'],
  'alert:acknowledge': ['admin', 'operator', 'technician'],
  // Who it is itself, and the end of its own session.
  'session:own': ['admin', 'operator', 'technician', 'viewer'],
  'metrics:read': ['admin', 'operator', 'technician', 'viewer'],
} as const satisfies Record<string, readonly Role[]>

/** What these roles send and change is limited to their grants; nobody's reading is. */
const WITHIN_GRANTS: readonly Role[] = ['operator']
export const isScoped = (role: Role): boolean => WITHIN_GRANTS.includes(role)

export type Permission = keyof typeof PERMISSIONS

/** Throws FORBIDDEN. */
export function authorize(principal: Principal, permission: Permission): void {
  if ((PERMISSIONS[permission] as readonly Role[]).includes(principal.role)) return
  throw new AppError('FORBIDDEN', `Role ${principal.role} may not do this (${permission}).`)
}
