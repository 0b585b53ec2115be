/** What the page asks for, from its address: filters of the log for the daemon, and the command that prints the same. Pure. */
import { option } from '../../lib/command'

export interface Asked {
  readonly caller: string
  readonly callee: string
  readonly result: string
  readonly run: string
  readonly since: string
  readonly until: string
  /** Number below which records are looked at; 0 = from the newest. */
  readonly before: number
}

/** Windows by their name in the address, in seconds. */
export const WINDOWS: Readonly<Record<string, number>> = { '15m': 900, '1h': 3_600, '24h': 86_400, '7d': 604_800 }
export const RESULTS = ['completed', 'failed', 'refused', 'canceled', 'unreached', 'interrupted'] as const
export const PAGE = 100

/**
 * Read the filters of the log. A window ends now and begins at a whole minute, so that the page and the command that is copied a moment
 * later look at the same records; `since` and `until` of the address outweigh it.
 */
export function asked(query: Readonly<Record<string, string>>, nowMs: number): Asked {
  const name = query['window'] ?? ''
  const window = Object.hasOwn(WINDOWS, name) ? WINDOWS[name] : 0
  const before = Number(query['before'])
  const of = (name: string, max = 128) => (query[name] ?? '').trim().slice(0, max)
  return {
    caller: of('caller'),
    callee: of('callee'),
    result: of('result', 64),
    run: of('run'),
    since: of('since', 40) || (window ? stamp(Math.floor((nowMs - window * 1000) / 60_000) * 60_000) : ''),
    until: of('until', 40),
    before: Number.isSafeInteger(before) && before > 0 ? before : 0,
  }
}

function stamp(ms: number): string {
  return new Date(ms).toISOString().slice(0, 16)
}

/** Return what of it goes into a question to the daemon; what is not asked for is left out. */
export function params(one: Asked): Record<string, string> {
  const out: Record<string, string> = { action: 'call' }
  for (const name of ['caller', 'callee', 'result', 'run', 'since', 'until'] as const) if (one[name]) out[name] = one[name]
  return out
}

/** Return the commands that list and export the same records. */
export function commands(one: Asked): string[] {
  const filters = Object.entries(params(one)).map(([name, value]) => option(name, value))
  const before = one.before ? [`--before ${one.before}`] : []
  return [
    ['agentmesh audit show', ...filters, ...before, `-n ${PAGE}`].join(' '),
    ['agentmesh audit export', ...filters].join(' ') + ' > audit.ndjson',
    'agentmesh audit verify',
  ]
}
