/**
 * From the daemon's answer to what is drawn: groups (machines or zones), marks in them, lines between them. Pure.
 *
 * First filter, then draw: beyond `MARKS_MAX` marks, groups are closed, and calls are drawn from group to group, unless one opens them.
 */
import type { Schemas } from '../../lib/api'
import type { Topology } from './digest'

export type Machine = Schemas['MachineView']
export type Agent = Schemas['TopologyAgent']
export type Edge = Schemas['EdgeView']

/** As many marks as are drawn at once unless one asks for more. */
export const MARKS_MAX = 300

/** Shapes, in the order in which the shader knows them. */
export const SHAPES = ['disc', 'circle', 'square', 'diamond', 'triangle', 'hexagon', 'plus', 'cross', 'wedge'] as const
export type Shape = (typeof SHAPES)[number]
export type Fill = 'solid' | 'dot' | 'stripes' | 'hollow'
export type Ring = 'none' | 'dashed' | 'thin' | 'thick' | 'double'
export type Tone = 'ok' | 'bad' | 'idle' | 'people'

/** What kind of agent has which shape; a kind that is not known here is drawn as what is behind another node. */
const KINDS: Readonly<Record<string, Shape>> = {
  sdk: 'circle',
  http: 'square',
  a2a: 'diamond',
  mesh: 'triangle',
  federated: 'hexagon',
  registry: 'plus',
  gone: 'cross',
  program: 'wedge',
  people: 'wedge',
}
export const KIND_ORDER = ['sdk', 'http', 'a2a', 'mesh', 'federated', 'registry', 'people', 'gone'] as const

export function shapeOf(kind: string): Shape {
  return Object.hasOwn(KINDS, kind) ? (KINDS[kind] as Shape) : 'triangle'
}

export function fillOf(health: string): { fill: Fill; tone: Tone } {
  if (health === 'healthy') return { fill: 'solid', tone: 'ok' }
  if (health === 'unhealthy') return { fill: 'stripes', tone: 'bad' }
  if (health === 'gone') return { fill: 'hollow', tone: 'idle' }
  return { fill: 'dot', tone: 'idle' }
}

export function ringOf(tier: string): Ring {
  const rings: Readonly<Record<string, Ring>> = { own: 'double', high: 'thick', medium: 'thin', low: 'dashed' }
  return Object.hasOwn(rings, tier) ? (rings[tier] as Ring) : 'none'
}

export interface Mark {
  readonly id: string
  readonly group: string
  readonly name: string
  readonly kind: string
  readonly shape: Shape
  readonly fill: Fill
  readonly tone: Tone
  readonly ring: Ring
  /** The agent; none for people and programs at a machine. */
  readonly agent?: Agent
  /** Whether it stands for the people and programs at this machine. */
  readonly you: boolean
  /** Calls in the window that begin or end here. */
  readonly calls: number
}

export interface Group {
  readonly id: string
  readonly name: string
  readonly own: boolean
  /** Whether something is wrong with its machine: it does not answer. */
  readonly away: boolean
  readonly machines: readonly Machine[]
  readonly marks: readonly Mark[]
  /** Whether its marks are drawn. */
  readonly open: boolean
}

export interface Line {
  readonly id: string
  readonly from: string
  readonly to: string
  readonly calls: number
  readonly failures: number
  readonly perMinute: number
  /** Of a line that stands for one edge. */
  readonly p50Ms: number | null
  readonly relayed: boolean
  readonly running: boolean
  /** Whether there is a line the other way as well. */
  readonly both: boolean
  readonly edges: readonly Edge[]
}

export interface Scene {
  readonly groups: readonly Group[]
  readonly lines: readonly Line[]
  /** Marks in all, drawn or not. */
  readonly marks: number
  /** Whether groups are closed because there are too many marks. */
  readonly crowded: boolean
}

export interface How {
  readonly by: 'machine' | 'zone'
  /** Open all groups although there are many marks. */
  readonly all: boolean
  /** Groups that are open all the same. */
  readonly opened: readonly string[]
}

const ELSEWHERE = 'elsewhere'

/** The id of the mark of people and programs at a machine. */
export function peopleAt(node: string): string {
  return `people:${node}`
}

/** Return which marks an edge leads from and to. */
export function endsOf(edge: Edge): { from: string; to: string } {
  const people = edge.caller_kind === 'you' || edge.caller_kind === 'node'
  return { from: people ? peopleAt(edge.caller_node) : edge.caller, to: edge.callee }
}

/**
 * Return what is drawn.
 *
 * @param view - The answer.
 * @param how - How it is grouped, and what is opened.
 */
export function sceneOf(view: Topology, how: How): Scene {
  const machines = view.machines
  const agents = view.agents
  const edges = view.edges
  const groupOf = new Map<string, string>()
  const held = new Map<string, { name: string; own: boolean; machines: Machine[]; marks: Mark[] }>()
  const hold = (id: string, name: string) => {
    let group = held.get(id)
    if (!group) held.set(id, (group = { name, own: false, machines: [], marks: [] }))
    return group
  }
  for (const machine of machines) {
    const id = how.by === 'zone' ? `zone:${machine.zone}` : machine.node_id
    const group = hold(id, how.by === 'zone' ? machine.zone : machine.name)
    group.machines.push(machine)
    group.own ||= machine.own
    groupOf.set(machine.node_id, id)
  }
  const place = (node: string) => {
    const id = groupOf.get(node)
    if (id !== undefined) return id
    hold(ELSEWHERE, '')
    return ELSEWHERE
  }

  const calls = new Map<string, number>()
  for (const edge of edges) {
    const { from, to } = endsOf(edge)
    for (const end of [from, to]) calls.set(end, (calls.get(end) ?? 0) + edge.calls)
  }
  const groupOfMark = new Map<string, string>()
  const add = (mark: Mark) => {
    if (groupOfMark.has(mark.id)) return
    groupOfMark.set(mark.id, mark.group)
    held.get(mark.group)?.marks.push(mark)
  }
  for (const agent of agents) {
    const health = fillOf(agent.health)
    add({
      id: agent.agent_id,
      group: place(agent.node_id || view.node_id),
      name: agent.name,
      kind: agent.kind,
      shape: shapeOf(agent.kind),
      fill: health.fill,
      tone: agent.kind === 'program' ? 'people' : health.tone,
      ring: ringOf(agent.trust_tier),
      agent,
      you: false,
      calls: calls.get(agent.agent_id) ?? 0,
    })
  }
  for (const edge of edges) {
    const { from } = endsOf(edge)
    if (!from.startsWith('people:')) continue
    add({
      id: from,
      group: place(edge.caller_node),
      name: edge.caller_name,
      kind: 'people',
      shape: shapeOf('people'),
      fill: 'solid',
      tone: 'people',
      ring: 'none',
      you: edge.caller_kind === 'you',
      calls: calls.get(from) ?? 0,
    })
  }

  const crowded = groupOfMark.size > MARKS_MAX && !how.all
  const groups: Group[] = [...held].map(([id, group]) => ({
    id,
    name: group.name,
    own: group.own,
    away: group.machines.length > 0 && group.machines.every((one) => one.state !== 'alive'),
    machines: group.machines,
    marks: group.marks,
    open: !crowded || how.opened.includes(id),
  }))
  const openGroups = new Set(groups.filter((one) => one.open).map((one) => one.id))
  const endOf = (mark: string) => {
    const group = groupOfMark.get(mark)
    return group === undefined ? undefined : openGroups.has(group) ? mark : group
  }
  return { groups, lines: linesOf(edges, endOf), marks: groupOfMark.size, crowded }
}

function linesOf(edges: readonly Edge[], endOf: (mark: string) => string | undefined): Line[] {
  const bundles = new Map<string, { from: string; to: string; edges: Edge[] }>()
  for (const edge of edges) {
    const ends = endsOf(edge)
    const from = endOf(ends.from)
    const to = endOf(ends.to)
    if (from === undefined || to === undefined || from === to) continue
    const id = `${from} ${to}`
    const bundle = bundles.get(id)
    if (bundle) bundle.edges.push(edge)
    else bundles.set(id, { from, to, edges: [edge] })
  }
  return [...bundles].map(([id, { from, to, edges: all }]) => ({
    id,
    from,
    to,
    calls: sum(all, (one) => one.calls),
    failures: sum(all, (one) => one.failures),
    perMinute: sum(all, (one) => one.per_minute),
    p50Ms: all.length === 1 ? (all[0]?.p50_ms ?? null) : null,
    relayed: all.some((one) => one.path === 'relayed'),
    running: all.some((one) => (one.running) > 0),
    both: bundles.has(`${to} ${from}`),
    edges: all,
  }))
}

function sum<T>(all: readonly T[], of: (one: T) => number): number {
  return all.reduce((total, one) => total + of(one), 0)
}

/** How wide a line is, in units of a mark's radius: by the logarithm of its rate, so that a busy edge hides no quiet one. */
export function widthOf(perMinute: number): number {
  return Math.min(0.9, 0.14 + 0.1 * Math.log2(1 + Math.max(0, perMinute)))
}
