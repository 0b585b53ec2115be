/** What Ctrl-K finds: pages, agents, runs, commands, and the question itself. Pure. */

export interface Thing {
  readonly kind: 'page' | 'agent' | 'run' | 'command' | 'ask'
  readonly key: string
  readonly label: string
  readonly more: string
  /** Where it leads; a command is copied instead. */
  readonly to: string
  /** By what else it is found. */
  readonly words: readonly string[]
}

/** The commands that people look for, in the words of the CLI's own sheet (`agentmesh cheat`). */
export const COMMANDS: readonly string[] = [
  'agentmesh status',
  'agentmesh discover "…"',
  'agentmesh run --to NAME "…"',
  'agentmesh trace last',
  'agentmesh trace last -f',
  'agentmesh trace --list',
  'agentmesh show NAME',
  'agentmesh register URL',
  'agentmesh peers',
  'agentmesh peers add SEED',
  'agentmesh net',
  'agentmesh topology',
  'agentmesh trust NAME',
  'agentmesh receipt show last',
  'agentmesh audit verify',
  'agentmesh policy show',
  'agentmesh keys list',
  'agentmesh killswitch status',
  'agentmesh killswitch on',
  'agentmesh config explain',
  'agentmesh models list',
  'agentmesh logs -f',
  'agentmesh doctor',
  'agentmesh demo --keep',
  'agentmesh cheat',
]

const EACH_MAX = 8

/**
 * Return what fits, best first within each kind, and how much was left out.
 *
 * @param asked - What was typed. Without it pages and agents are offered, newest things later.
 */
export function find(asked: string, things: readonly Thing[]): { found: Thing[]; more: number } {
  const wanted = asked.trim().toLowerCase()
  const groups = new Map<string, { thing: Thing; rank: number }[]>()
  for (const thing of things) {
    const rank = wanted ? rankOf(wanted, thing) : thing.kind === 'page' || thing.kind === 'agent' ? 1 : 0
    if (rank) groups.set(thing.kind, [...(groups.get(thing.kind) ?? []), { thing, rank }])
  }
  let more = 0
  const found = [...groups.values()].flatMap((group) => {
    more += Math.max(0, group.length - EACH_MAX)
    // Sorting is stable: what ranks alike stays in the order of the daemon.
    return group.sort((a, b) => b.rank - a.rank).slice(0, EACH_MAX)
  })
  return { found: found.map((one) => one.thing), more }
}

/** 3 if its name is or begins so, 2 if a word of it does, 1 if it holds what is wanted somewhere, 0 if not. */
function rankOf(wanted: string, thing: Thing): number {
  if (thing.kind === 'ask') return 1
  const name = thing.label.toLowerCase()
  if (name.startsWith(wanted)) return 3
  if (thing.words.some((word) => word.toLowerCase().startsWith(wanted)) || name.split(/[^\p{L}\p{N}]+/u).some((part) => part.startsWith(wanted))) return 2
  // Runs and ids are named by their beginning; a piece from their middle would find anything.
  return thing.kind !== 'run' && name.includes(wanted) ? 1 : 0
}
