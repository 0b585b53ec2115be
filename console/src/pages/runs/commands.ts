/** The commands that print what the pages of runs show. */
import { option } from '../../lib/command'
import { isFailed, type Filter, type Task } from './rows'

/** Calls that one command names; the daemon takes 64 in a list. */
const TASKS_MAX = 60

function options(pairs: readonly (readonly [string, string])[]): string {
  return pairs.map(([name, value]) => (value ? ` ${option(name, value)}` : '')).join('')
}

/**
 * Return the commands for a run with these filters: without any, the one that tells it whole; "failed only" is what failed calls
 * say and errors elsewhere, which are two lists on the command line.
 */
export function traceCommands(run: string, filter: Filter, tasks: readonly Task[]): string[] {
  const common = (task: string, kind: string) =>
    `agentmesh trace ${run}` +
    options([
      ['agent', filter.agent],
      ['state', filter.state],
      ['kind', kind],
      ['task', task],
      ['since', filter.since ? String(filter.since) : ''],
      ['until', filter.until ? String(filter.until) : ''],
    ])
  if (!filter.failed) return [common(filter.task, filter.kind)]
  const failed = tasks.filter((one) => isFailed(one.state) && (!filter.task || one.task_id === filter.task)).map((one) => one.task_id)
  const out: string[] = []
  for (let at = 0; at < failed.length; at += TASKS_MAX) out.push(common(failed.slice(at, at + TASKS_MAX).join(','), filter.kind))
  if (!filter.kind && !filter.agent && !filter.task) out.push(common('', 'error'))
  return out
}

/** Which runs are listed; "" for any. */
export interface ListFilter {
  agent: string
  state: string
  kind: string
  /** "15m", "1h" …: how long ago they still went on; or microseconds since 1970. */
  since: string
  until: string
  /** Go on after an answer. */
  before: string
}

/** Return the command for the list of runs with these filters. */
export function listCommand(filter: ListFilter, limit: number): string {
  const { agent, state, kind, since, until, before } = filter
  const pairs = [
    ['agent', agent],
    ['state', state],
    ['kind', kind],
    ['since', since],
    ['until', until],
    ['before', before],
    ['limit', String(limit)],
  ] as const
  return `agentmesh trace --list${options(pairs)}`
}

/** Return the time that a filter means in microseconds, 0 for none or what is no time. */
export function moment(text: string, nowMs: number): number {
  if (/^\d{9,16}$/.test(text)) return Number(text)
  const [, count, unit] = /^(\d{1,6})([smhdw])$/.exec(text) ?? []
  const s = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 }[unit ?? '']
  return count && s ? Math.max(0, Math.floor((nowMs - Number(count) * s * 1000) * 1000)) : 0
}
