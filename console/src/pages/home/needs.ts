/** What needs a person, from what the daemon says of itself. Pure; the page puts it into words. */
import type { Schemas } from '../../lib/api'

export interface Failing {
  readonly agent_id: string
  readonly name: string
  readonly node_name?: string
  readonly detail?: string
}

export interface Known {
  readonly status?: Schemas['StatusView'] | undefined
  readonly failing?: readonly Failing[]
  /** Failing agents beyond those named. */
  readonly failingMore?: number
  readonly peers?: readonly Schemas['PeerView'][]
  readonly keys?: readonly Schemas['KeyView'][]
  /** Machines that this browser showed before; none are new where that is not known. */
  readonly seen?: ReadonlySet<string> | undefined
  readonly nowS: number
}

export interface Need {
  readonly kind: 'stopped' | 'cut-off' | 'isolated' | 'failing' | 'more-failing' | 'suspect' | 'dead' | 'new' | 'key-over' | 'key-ends' | 'warning'
  /** Who it is about: a name from anywhere, or "". */
  readonly who: string
  /** More, in words of the daemon or of strangers. */
  readonly detail: string
  /** Page, and what follows it in the address. */
  readonly to: readonly [string, readonly string[], Readonly<Record<string, string>>]
  /** What to do about it on the command line; "" for nothing in particular. */
  readonly command: string
  readonly count: number
}

const EACH_MAX = 5
const SOON_S = 7 * 86_400

/** Return what needs a person, gravest first; of each kind at most 5, and how many more are left out. */
export function needsOf(known: Known): { needs: Need[]; more: number } {
  const { status, nowS } = known
  const readOnly = !!status?.read_only
  const warnings = status?.warnings ?? []
  const peers = known.peers ?? []
  const failing = known.failing ?? []
  const unnamed = failing.length - Math.min(failing.length, EACH_MAX) + (known.failingMore ?? 0)
  const groups: Need[][] = [
    readOnly ? [need('stopped', '', warnings[0] ?? '', ['peers', [], {}], 'agentmesh killswitch status')] : [],
    status?.cut_off
      ? [need(status.cut_off.isolated ? 'isolated' : 'cut-off', '', '', ['peers', [], {}], 'agentmesh peers', status.cut_off.isolated ? status.cut_off.known : status.cut_off.lost)]
      : [],
    failing.slice(0, EACH_MAX).map((one) => need('failing', one.name, one.detail ?? '', ['discover', [], { agent: one.agent_id }], '')),
    unnamed > 0 ? [need('more-failing', '', '', ['discover', [], {}], 'agentmesh discover', unnamed)] : [],
    peers.filter((one) => one.state === 'suspect').map((one) => need('suspect', one.node_name || one.node_id, one.last_error, ['peers', [], {}], 'agentmesh peers')),
    peers.filter((one) => one.state === 'dead').map((one) => need('dead', one.node_name || one.node_id, one.last_error, ['peers', [], {}], 'agentmesh peers')),
    (known.seen ? strangers(peers, known.seen) : []).map((one) => need('new', one.node_name || one.node_id, '', ['peers', [], {}], 'agentmesh peers')),
    (known.keys ?? []).filter((one) => one.expired).map((one) => need('key-over', one.name, '', ['peers', [], {}], 'agentmesh keys list')),
    (known.keys ?? [])
      .filter((one) => !one.expired && one.expires !== null && one.expires - nowS < SOON_S)
      .map((one) => need('key-ends', one.name, '', ['peers', [], {}], 'agentmesh keys list', Math.max(0, Math.ceil(((one.expires ?? 0) - nowS) / 86_400)))),
    // The first warning of a stopped node says why it is; it stands above.
    warnings.slice(readOnly ? 1 : 0).map((text) => need('warning', '', text, ['peers', [], {}], 'agentmesh doctor')),
  ]
  return {
    needs: groups.flatMap((group) => group.slice(0, EACH_MAX)),
    more: groups.reduce((sum, group) => sum + Math.max(0, group.length - EACH_MAX), 0),
  }
}

/** Machines in touch that were not there when somebody looked last. */
export function strangers<T extends { node_id: string; state: string }>(peers: readonly T[], seen: ReadonlySet<string>): T[] {
  return peers.filter((one) => one.state === 'alive' && !seen.has(one.node_id))
}

function need(kind: Need['kind'], who: string, detail: string, to: Need['to'], command: string, count = 0): Need {
  return { kind, who, detail, to, command, count }
}
