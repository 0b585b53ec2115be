import { describe, expect, test, vi } from 'vitest'
import { LABELS_MAX, NO_FILTER, Rows, select, tree, type Batch, type Filter, type Task } from './rows'

// A machine may be slow; nothing here waits for time.
vi.setConfig({ testTimeout: 60_000 })

/** A generator of the same numbers every time (mulberry32). */
function random(seed: number): (below: number) => number {
  return (below) => {
    seed = (seed + 0x6d2b79f5) | 0
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below)
  }
}

const KINDS = ['status', 'message', 'error']
const STATES = ['submitted', 'failed']
interface Row {
  seq: number
  ts: number
  kind: number
  task: number
  state: number
  label: string
}

const batchOf = (rows: readonly (readonly [number, Row])[]): Batch => ({
  position: rows.map(([position]) => position),
  seq: rows.map(([, row]) => row.seq),
  ts: rows.map(([, row]) => row.ts),
  kind: rows.map(([, row]) => row.kind),
  task: rows.map(([, row]) => row.task),
  node: rows.map(() => 0),
  state: rows.map(([, row]) => row.state),
  label: rows.map(([, row]) => row.label),
  bytes: rows.map(() => 100),
  index: [],
})

const held = (rows: Rows) => Array.from(rows.order.subarray(0, rows.length), (slot) => rows.seq[slot])

const task = (task_id: string, more: Partial<Task> = {}): Task => ({
  task_id,
  agent: '',
  agent_id: '',
  caller: '',
  skill: '',
  path: '',
  state: '',
  depth: 0,
  parent: -1,
  events: 0,
  first_ts: 0,
  last_ts: 0,
  ...more,
})

describe('merging by position', () => {
  test('gives the list of the server, whatever comes between and however it is paged', () => {
    for (let seed = 1; seed <= 200; seed++) {
      const next = random(seed)
      const model: Row[] = []
      const rows = new Rows()
      let seq = 0
      for (let round = 0; round < 8; round++) {
        // What came since, put anywhere into the run: late copies, ties, clocks that jump.
        const fresh = new Set<Row>()
        for (let count = next(40); count > 0; count--) {
          const row = { seq: ++seq, ts: next(1000), kind: next(3), task: next(5) - 1, state: next(3) - 1, label: `row ${seq}` }
          fresh.add(row)
          model.splice(next(3) ? model.length : next(model.length + 1), 0, row)
        }
        const asked = model.map((row, position) => [position, row] as const).filter(([, row]) => fresh.has(row))
        const page = 1 + next(25)
        for (let start = 0; start < asked.length; start += page) expect(rows.merge(batchOf(asked.slice(start, start + page)))).toBe(true)
        expect(held(rows)).toEqual(model.map((row) => row.seq))
      }
      const slots = Array.from(rows.order.subarray(0, rows.length))
      expect(slots.map((slot) => rows.label(slot))).toEqual(model.map((row) => row.label))
      expect(slots.map((slot) => rows.ts[slot])).toEqual(model.map((row) => row.ts))
      const filter: Filter = {
        ...NO_FILTER,
        kind: ['', 'message'][next(2)]!,
        state: ['', 'failed', 'unheard'][next(3)]!,
        agent: ['', 'ANNA'][next(2)]!,
        since: next(2) && 300,
        until: next(2) && 700,
      }
      const tasks = ['anna', 'ben', 'Anna', ''].map((agent, index) => task(`t${index}`, { agent }))
      const expected = model.flatMap((row, position) =>
        (!filter.kind || KINDS[row.kind] === filter.kind) &&
        (!filter.state || STATES[row.state] === filter.state) &&
        (!filter.agent || tasks[row.task]?.agent.toLowerCase() === 'anna') &&
        row.ts >= filter.since &&
        (!filter.until || row.ts <= filter.until)
          ? [position]
          : [],
      )
      const found = select(rows, { kinds: KINDS, states: STATES, tasks }, filter)
      expect(found ? Array.from(found) : model.map((_, position) => position)).toEqual(expected)
    }
  })

  test('refuses a batch that does not fit, and changes nothing', () => {
    const rows = new Rows()
    const row = (seq: number): Row => ({ seq, ts: 1, kind: 0, task: 0, state: -1, label: '' })
    expect(rows.merge(batchOf([[0, row(1)], [1, row(2)]]))).toBe(true)
    expect(rows.merge(batchOf([[4, row(3)]]))).toBe(false)
    expect(rows.merge(batchOf([[2, row(3)], [2, row(4)]]))).toBe(false)
    expect(rows.merge(batchOf([[-1, row(3)]]))).toBe(false)
    expect(rows.merge({ ...batchOf([[2, row(3)]]), ts: [] })).toBe(false)
    expect(held(rows)).toEqual([1, 2])
    expect(rows.merge(batchOf([[0, row(3)], [3, row(4)]]))).toBe(true)
    expect(held(rows)).toEqual([3, 1, 2, 4])
    expect(rows.find(2)).toBe(2)
    expect(rows.find(99)).toBe(-1)
  })

  test('takes 300,000 rows in pages and in ticks, and forgets the oldest labels only', () => {
    const rows = new Rows()
    let seq = 0
    const some = (count: number, from: number): Batch =>
      batchOf(Array.from({ length: count }, (_, one) => [from + one, { seq: ++seq, ts: seq, kind: 0, task: 0, state: -1, label: `label ${seq}` }]))
    while (rows.length < 280_000) rows.merge(some(20_000, rows.length))
    while (rows.length < 300_000) rows.merge(some(100, rows.length - 50))
    expect(rows.length).toBe(300_000)
    expect(rows.labelled).toBe(LABELS_MAX)
    expect(rows.label(0)).toBeUndefined()
    expect(rows.label(250_000)).toBe('label 250001')
    expect(rows.label(299_999)).toBe('label 300000')
    rows.relabel(batchOf([[0, { seq: 1, ts: 1, kind: 0, task: 0, state: -1, label: 'again' }]]))
    expect(rows.label(0)).toBe('again')
    expect(rows.labelled).toBe(LABELS_MAX)
  })
})

describe('how long a step took', () => {
  test('is until the next event of its call, and never below zero', () => {
    const rows = new Rows()
    const at = (seq: number, ts: number, of: number): Row => ({ seq, ts, kind: 0, task: of, state: -1, label: '' })
    rows.merge(batchOf([[0, at(1, 100, 0)], [1, at(2, 150, 1)], [2, at(3, 180, 0)], [3, at(4, 20, 1)], [4, at(5, 9, -1)]]))
    expect([0, 1, 2, 3, 4].map((position) => rows.until(position, []))).toEqual([180, 150, 180, 20, 9])
  })
})

describe('failed only', () => {
  test('shows the calls that failed and errors elsewhere', () => {
    const rows = new Rows()
    const at = (seq: number, kind: number, of: number): Row => ({ seq, ts: seq, kind, task: of, state: -1, label: '' })
    rows.merge(batchOf([[0, at(1, 0, 0)], [1, at(2, 1, 1)], [2, at(3, 2, 0)], [3, at(4, 0, -1)]]))
    const tasks = [task('a', { state: 'completed' }), task('b', { state: 'failed' })]
    expect(Array.from(select(rows, { kinds: KINDS, states: STATES, tasks }, { ...NO_FILTER, failed: true })!)).toEqual([1, 2])
  })
})

describe('calls as a tree', () => {
  test('each call stands below its cause, each once, even if they name each other', () => {
    expect(tree([task('a'), task('b', { parent: 0, first_ts: 5 }), task('c'), task('d', { parent: 0, first_ts: 2 })])).toEqual([0, 3, 1, 2])
    expect(tree([task('a', { parent: 1 }), task('b', { parent: 0 }), task('c', { parent: 2 })]).sort()).toEqual([0, 1, 2])
    const chain = Array.from({ length: 20_000 }, (_, index) => task(`t${index}`, { parent: index - 1 }))
    expect(tree(chain)).toEqual(chain.map((_, index) => index))
  })
})
