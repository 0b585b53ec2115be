import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { Run } from './run.svelte'

// A machine may be slow; nothing here waits for time.
vi.setConfig({ testTimeout: 60_000 })

/** A daemon that holds one run and answers as docs/spec/console.md §1 says. */
const daemon = vi.hoisted(() => ({
  list: [] as number[],
  asked: [] as Record<string, number | boolean>[],
  fail: false,
  nodes: 1,
  /** Called before each answer: what happens meanwhile. */
  meanwhile: () => {},
  tick: (_: object) => {},
}))

vi.mock('../../lib/live.svelte', () => ({ onTick: (listener: (tick: object) => void) => ((daemon.tick = listener), () => {}) }))
vi.mock('../../lib/api', () => {
  class ApiError extends Error {}
  const answer = async (_: string, given: { params: { query: Record<string, number> } }) => {
    const { after = 0, upto: asked = 0, start = 0, limit = 5_000 } = given.params.query
    daemon.asked.push(given.params.query)
    daemon.meanwhile()
    if (daemon.fail) throw new ApiError('away')
    const upto = asked || Math.max(0, ...daemon.list)
    const then = daemon.list.filter((seq) => seq <= upto)
    const fits = then.map((seq, position) => [position, seq] as const).filter(([, seq]) => seq > after)
    const page = fits.slice(start, start + limit)
    const all = (value: number) => page.map(() => value)
    return {
      run_id: 'r',
      count: daemon.list.length,
      digest: String(daemon.list.reduce((sum, seq, at) => (sum * 31 + seq * at) % 1e9, 7)),
      matching: then.length,
      upto,
      more: start + limit < fits.length,
      rows: {
        position: page.map(([position]) => position),
        seq: page.map(([, seq]) => seq),
        ts: page.map(([, seq]) => seq),
        kind: all(0),
        task: all(-1),
        node: all(0),
        state: all(-1),
        label: page.map(([, seq]) => `label ${seq}`),
        bytes: all(1),
        index: [],
      },
      tasks: [],
      kinds: ['message'],
      states: [],
      node_ids: ['n'],
      nodes: Object.fromEntries(Array.from({ length: daemon.nodes }, (_, at) => [`n${at}`, `n${at}`])),
      missing_nodes: given.params.query.remote ? ['n1'] : [],
      complete: false,
      receipts: 0,
    }
  }
  return { ApiError, client: { GET: answer }, got: (given: unknown) => given }
})

let seq = 0
const add = (count: number, anywhere = false) => {
  for (; count > 0; count--) daemon.list.splice(anywhere ? (daemon.list.length * 7919) % (daemon.list.length + 1) : daemon.list.length, 0, ++seq)
}
const held = (run: Run) => Array.from(run.rows.order.subarray(0, run.rows.length), (slot) => run.rows.seq[slot])
const news = (more: object = {}) => daemon.tick({ runs: ['r'], changed: [], resync: false, ...more })
let stop = () => {}

beforeEach(() => {
  vi.stubGlobal('document', { hidden: false, addEventListener: () => {}, removeEventListener: () => {} })
  Object.assign(daemon, { list: [], asked: [], fail: false, nodes: 1, meanwhile: () => {} })
  seq = 0
})
afterEach(() => stop())

describe('a run that is looked at', () => {
  test('is held whole, in the order of the daemon, though it grows while it is paged and afterwards', async () => {
    add(25_000)
    daemon.meanwhile = () => add(3, true)
    const run = new Run('r')
    stop = run.start()
    await vi.waitFor(() => expect(run.loaded).toBe(true), 20_000)
    expect(daemon.asked.slice(0, 3).map((one) => one.limit)).toEqual([1_000, 20_000, 20_000])
    for (let round = 0; round < 5; round++) {
      add(40, true)
      const before = daemon.asked.length
      news()
      await vi.waitFor(() => expect(daemon.asked.length).toBeGreaterThan(before), 20_000)
    }
    daemon.meanwhile = () => {}
    news()
    await vi.waitFor(() => expect(held(run)).toEqual(daemon.list), 20_000)
    expect([run.head?.count, run.rows.length]).toEqual([daemon.list.length, daemon.list.length])
    expect(run.label(run.rows.order[0]!)).toBe(`label ${daemon.list[0]}`)
  })

  test('is loaded anew when the log is another one', async () => {
    add(50)
    const run = new Run('r')
    stop = run.start()
    await vi.waitFor(() => expect(run.loaded).toBe(true), 20_000)
    daemon.list = daemon.list.slice(20)
    news({ resync: true })
    await vi.waitFor(() => expect(held(run)).toEqual(daemon.list), 20_000)
  })

  test('comes back when the daemon does', async () => {
    add(10)
    daemon.fail = true
    const run = new Run('r')
    stop = run.start()
    await vi.waitFor(() => expect(run.error).toBeDefined(), 20_000)
    daemon.fail = false
    news({ resync: true })
    await vi.waitFor(() => expect(held(run)).toEqual(daemon.list), 20_000)
    expect(run.error).toBeUndefined()
  })

  test('asks the other nodes after its own rows are there, and says who is missing', async () => {
    add(10)
    daemon.nodes = 2
    const run = new Run('r')
    stop = run.start()
    await vi.waitFor(() => expect(run.missing).toEqual(['n1']), 20_000)
    expect(daemon.asked.map((one) => one.remote)).toEqual([false, true])
  })
})
