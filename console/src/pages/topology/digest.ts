/** The digest of what an answer shows, computed here as the daemon and the CLI compute it, so that the page can prove that it shows the same. */
import type { Schemas } from '../../lib/api'

export type Topology = Schemas['TopologyView']

/** The lines that the digest is of, in order: ids, enumerated words and integers with one space between them. */
export function digestLines(view: Pick<Topology, 'machines' | 'agents' | 'edges'>): string {
  const lines: string[] = []
  for (const one of view.machines) lines.push(`m ${one.node_id} ${one.state} ${one.path} ${one.sources.join(',')}\n`)
  for (const one of view.agents) lines.push(`a ${one.agent_id} ${one.node_id} ${one.kind} ${one.health} ${one.trust_tier}\n`)
  for (const one of view.edges)
    lines.push(`e ${one.caller} ${one.callee} ${one.calls} ${one.failures} ${one.refusals} ${one.running} ${one.path}\n`)
  return lines.join('')
}

/** Return `9c1f-77e0`, or "" where the browser does not do SHA-256 (a page that is not a secure context). */
export async function digestOf(view: Pick<Topology, 'machines' | 'agents' | 'edges'>): Promise<string> {
  if (!globalThis.crypto?.subtle) return ''
  const bytes = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(digestLines(view))))
  const hex = [...bytes.slice(0, 4)].map((byte) => byte.toString(16).padStart(2, '0')).join('')
  return `${hex.slice(0, 4)}-${hex.slice(4)}`
}
