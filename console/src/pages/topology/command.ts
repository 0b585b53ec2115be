/** The command that prints what the page shows. */

import { option } from '../../lib/command'

export function commandOf(windowS: number, source: string, zone: string): string {
  const parts = ['agentmesh topology']
  if (windowS !== 300) parts.push(option('window', windowS % 60 ? `${windowS}s` : `${windowS / 60}m`))
  if (source) parts.push(option('source', source))
  if (zone) parts.push(option('zone', zone))
  return parts.join(' ')
}
