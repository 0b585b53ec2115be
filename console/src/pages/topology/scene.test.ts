import { describe, expect, test } from 'vitest'
import { digestLines, digestOf, type Topology } from './digest'
import { layout } from './layout'
import { closedRadius, firstSpots, Places, radiusOf, spotOf, type Question } from './place'
import { fillOf, MARKS_MAX, peopleAt, ringOf, sceneOf, shapeOf, SHAPES, widthOf, type Agent, type Edge, type Machine } from './scene'

const ALL = { by: 'machine', all: false, opened: [] } as const

function edge(caller: string, callee: string, more: Partial<Edge> = {}): Edge {
  return {
    caller, callee, caller_kind: 'agent', caller_name: caller, caller_node: 'n1', callee_name: callee, callee_node: 'n2',
    last_ts: 0, p50_ms: null, p99_ms: null, relayed: 0, calls: 1, failures: 0, refusals: 0, running: 0, path: 'direct', per_minute: 0.2, ...more,
  }
}

function machine(node_id: string, more: Partial<Machine> = {}): Machine {
  return { node_id, name: node_id, own: false, state: 'alive', sources: [], path: '', rtt_ms: null, zone: '', site: '', agents: 0, ...more }
}

function agent(agent_id: string, node_id: string, more: Partial<Agent> = {}): Agent {
  return { agent_id, name: agent_id, node_id, kind: 'sdk', health: 'healthy', trust_tier: 'own', trust_score: 1, organisation: '', ...more }
}

function view(agents = 2, edges: Edge[] = []): Topology {
  return {
    node_id: 'n1', window_s: 300, covered_s: 300, source: '', zone: '', count: 0, digest: '', edges,
    calls: 0, failures: 0, refusals: 0, machines_more: 0, agents_more: 0, edges_more: 0,
    machines: [machine('n1', { own: true, zone: 'eu/0' }), machine('n2', { state: 'dead', zone: 'eu/0' }), machine('n3')],
    agents: Array.from({ length: agents }, (_, i) => agent(`a${i}`, `n${(i % 3) + 1}`)),
  }
}

describe('a scene', () => {
  test('puts agents into their machines and people where they called from', () => {
    const scene = sceneOf(view(3, [edge('n1', 'a1', { caller_kind: 'you' }), edge('n3', 'a0', { caller_kind: 'node', caller_node: 'n3' })]), ALL)
    expect(scene.groups.map((one) => [one.id, one.own, one.away, one.marks.map((mark) => mark.id)])).toEqual([
      ['n1', true, false, ['a0', peopleAt('n1')]],
      ['n2', false, true, ['a1']],
      ['n3', false, false, ['a2', peopleAt('n3')]],
    ])
    expect(scene.lines.map((one) => [one.from, one.to])).toEqual([[peopleAt('n1'), 'a1'], [peopleAt('n3'), 'a0']])
  })

  test('groups by zone, machines without one together', () => {
    const scene = sceneOf(view(3), { ...ALL, by: 'zone' })
    expect(scene.groups.map((one) => [one.id, one.machines.length, one.marks.length])).toEqual([['zone:eu/0', 2, 2], ['zone:', 1, 1]])
  })

  test('closes groups when there are too many marks, and bundles their calls', () => {
    const many = view(MARKS_MAX + 1, [edge('a0', 'a1', { calls: 2, failures: 1 }), edge('a3', 'a1', { path: 'relayed', calls: 3 }), edge('a0', 'a3')])
    const scene = sceneOf(many, ALL)
    expect(scene.crowded).toBe(true)
    expect(scene.groups.every((one) => !one.open)).toBe(true)
    expect(scene.lines).toMatchObject([{ from: 'n1', to: 'n2', calls: 5, failures: 1, relayed: true, p50Ms: null }])
    const opened = sceneOf(many, { ...ALL, opened: ['n1'] })
    expect(opened.lines.map((one) => [one.from, one.to])).toEqual([['a0', 'n2'], ['a3', 'n2'], ['a0', 'a3']])
    expect(sceneOf(many, { ...ALL, all: true }).groups.every((one) => one.open)).toBe(true)
  })

  test('loses nobody: an agent whose machine is not shown has a place too', () => {
    const odd = view(1)
    odd.agents.push(agent('x', 'n9'))
    expect(sceneOf(odd, ALL).groups.at(-1)).toMatchObject({ id: 'elsewhere', marks: [{ id: 'x' }] })
  })

  test('knows lines that go both ways', () => {
    const scene = sceneOf(view(2, [edge('a0', 'a1'), edge('a1', 'a0')]), ALL)
    expect(scene.lines.map((one) => one.both)).toEqual([true, true])
  })

  test('of hostile words is drawn like any other', () => {
    const odd = view(1)
    odd.agents.push(agent('__proto__', 'n1', { name: '<b>', kind: 'constructor', health: 'toString' as never, trust_tier: 'valueOf' as never }))
    const mark = sceneOf(odd, ALL).groups[0]?.marks[1]
    expect(mark).toMatchObject({ shape: 'triangle', fill: 'dot', ring: 'none' })
  })
})

describe('the look of a mark', () => {
  test('tells kinds by shape, health by fill and trust by ring, never by colour alone', () => {
    const shapes = ['sdk', 'http', 'a2a', 'mesh', 'federated', 'registry', 'gone', 'people'].map(shapeOf)
    expect(new Set(shapes).size).toBe(shapes.length)
    expect(shapes.every((one) => SHAPES.includes(one))).toBe(true)
    expect(new Set(['healthy', 'unhealthy', 'unknown', 'gone'].map((one) => fillOf(one).fill)).size).toBe(4)
    expect(new Set(['own', 'high', 'medium', 'low', 'unknown'].map(ringOf)).size).toBe(5)
  })
  test('makes a busy line wider, within bounds', () => {
    expect(widthOf(-1)).toBe(widthOf(0))
    expect(widthOf(10)).toBeGreaterThan(widthOf(1))
    expect(widthOf(1e12)).toBe(0.9)
  })
})

describe('places', () => {
  test('are kept by who has one, and given anew to newcomers', () => {
    const places = new Places()
    expect([...places.take('g', ['a', 'b', 'c']).values()]).toEqual([0, 1, 2])
    expect(Object.fromEntries(places.take('g', ['c', 'a', 'd']))).toEqual({ c: 2, a: 0, d: 1 })
    expect(Object.fromEntries(places.take('g', ['c']))).toEqual({ c: 0 })
  })
  test('do not overlap and lie in their group', () => {
    const spots = Array.from({ length: 60 }, (_, n) => spotOf(n))
    for (const [i, one] of spots.entries()) {
      expect(Math.hypot(one.x, one.y) + 1).toBeLessThan(radiusOf(i + 1))
      for (const other of spots.slice(0, i)) expect(Math.hypot(one.x - other.x, one.y - other.y)).toBeGreaterThan(2.2)
    }
    expect(closedRadius(1000)).toBeGreaterThan(closedRadius(1))
  })
  test('of groups do not overlap, and those that were placed stay', () => {
    const radii = [9, 3, 4, 5, 2.4, 12]
    const first = firstSpots(radii)
    const question: Question = {
      id: 1, radii, xs: first.map((one) => one.x), ys: first.map((one) => one.y), fixed: [true, true, false, false, false, false],
      ties: [0, 1, 1, 0, 5, 3],
    }
    const answer = layout(question)
    expect([answer.xs[0], answer.ys[0], answer.xs[1], answer.ys[1]]).toEqual([first[0]?.x, first[0]?.y, first[1]?.x, first[1]?.y])
    for (let i = 0; i < radii.length; i++)
      for (let j = 0; j < i; j++)
        if (i > 1) expect(Math.hypot(answer.xs[i]! - answer.xs[j]!, answer.ys[i]! - answer.ys[j]!)).toBeGreaterThan(radii[i]! + radii[j]!)
    expect(layout(question)).toEqual(answer)
  })
})

describe('the digest', () => {
  test('is the one of the daemon (tests/unit/node/test_topology.py)', async () => {
    const one: Topology = {
      ...view(0, [edge('did:a', 'did:x', { caller_kind: 'you', calls: 3, failures: 1, path: 'local' })]),
      machines: [machine('did:a', { name: 'ignored', own: true, sources: ['own'], path: 'local' })],
    }
    expect(await digestOf(one)).toBe('c292-9dcd')
    expect(digestLines(one).split('\n')).toEqual(['m did:a alive local own', 'e did:a did:x 3 1 0 0 local', ''])
  })
})
