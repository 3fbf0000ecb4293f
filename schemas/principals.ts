import { z } from 'zod'

export const Role = z.enum(['admin', 'operator', 'technician', 'viewer'])
export type Role = z.infer<typeof Role>

export interface Principal {
  id: string
  name: string
  role: Role
}
