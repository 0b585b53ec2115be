/**
 * The rows of a run as columns: 300,000 of them without an object each. A row keeps its slot for ever, in the order in which rows
 * came; `order` says which slot stands at which position of the run. Merging a batch so moves one column only.
 */
import type { Schemas } from '../../lib/api'

export type Batch = Schemas['RowBatch']
export type Task = Schemas['TaskRow']

/** Labels kept; those that were kept first are forgotten first, and asked for again when they are looked at. */
export const LABELS_MAX = 50_000
/** How far the next event of a call is looked for, in rows. */
const AHEAD_MAX = 5_000

export class Rows {
  /** Rows held. */
  length = 0
  /** Position in the run → slot. */
  order = new Int32Array(1024)
  /** By slot: see RowBatch. */
  seq = new Float64Array(1024)
  ts = new Float64Array(1024)
  kind = new Uint8Array(1024)
  task = new Int32Array(1024)
  node = new Int32Array(1024)
  state = new Int32Array(1024)
  bytes = new Float64Array(1024)
  private labels = new Map<number, string>()
  /** Slots whose labels are kept, oldest first from `oldest` on, as a ring. */
  private kept = new Int32Array(LABELS_MAX)
  private oldest = 0

  /** How many labels are held. */
  get labelled(): number {
    return this.labels.size
  }

  /**
   * Put in the rows of a batch, each at the position that it names in the run as it then is.
   *
   * @param push - Whether their labels may push out older ones; else they are kept while there is room.
   * @returns False if the batch does not fit to the rows held, which means that they are not of the same run or one is missing;
   *   nothing is changed then.
   */
  merge(batch: Batch, push = true): boolean {
    const count = batch.seq.length
    if (!this.fits(batch)) return false
    this.reserve(this.length + count)
    const from = this.length
    // From the last to the first, so that every row held moves at most once.
    for (let one = count - 1, end = from; one >= 0; one--) {
      const before = batch.position[one]! - one
      this.order.copyWithin(before + one + 1, before, end)
      this.order[batch.position[one]!] = from + one
      end = before
    }
    this.seq.set(batch.seq, from)
    this.ts.set(batch.ts, from)
    this.kind.set(batch.kind, from)
    this.task.set(batch.task, from)
    this.node.set(batch.node, from)
    this.state.set(batch.state, from)
    this.bytes.set(batch.bytes, from)
    this.length = from + count
    for (let one = 0; one < count && (push || this.labels.size < LABELS_MAX); one++) this.keep(from + one, batch.label[one]!)
    return true
  }

  /** Return what a row says; undefined if that was forgotten. */
  label(slot: number): string | undefined {
    return this.labels.get(slot)
  }

  /** Take labels of rows that are held, as they were asked for again: rows of the run from `position` on. */
  relabel(batch: Batch): void {
    for (let one = 0; one < batch.seq.length; one++) {
      // Later events may have moved the row: it is looked for from where it stood on, then everywhere.
      let slot = this.order[batch.position[one]!] ?? -1
      if (this.seq[slot] !== batch.seq[one]) slot = this.seq.subarray(0, this.length).indexOf(batch.seq[one]!)
      if (slot >= 0 && slot < this.length) this.keep(slot, batch.label[one]!)
    }
  }

  /** Return the position of an event, -1 if it is not held. */
  find(seq: number): number {
    const slot = this.seq.subarray(0, this.length).indexOf(seq)
    return slot < 0 ? -1 : this.order.subarray(0, this.length).indexOf(slot)
  }

  /**
   * Return until when what began at this row went on: the time of the next event of its call, or of the call's end. Never
   * before the row's own time, whatever the clocks say.
   */
  until(position: number, tasks: readonly Task[]): number {
    const slot = this.order[position]!
    const task = this.task[slot]!
    const begin = this.ts[slot]!
    if (task < 0) return begin
    const stop = Math.min(this.length, position + AHEAD_MAX)
    for (let at = position + 1; at < stop; at++) {
      const next = this.order[at]!
      if (this.task[next] === task) return Math.max(begin, this.ts[next]!)
    }
    return stop < this.length ? Math.max(begin, tasks[task]?.last_ts ?? begin) : begin
  }

  private fits(batch: Batch): boolean {
    const { position, seq, ts, kind, task, node, state, label, bytes } = batch
    if (![position, ts, kind, task, node, state, label, bytes].every((column) => column.length === seq.length)) return false
    let least = 0
    for (let one = 0; one < position.length; one++) {
      const before = position[one]! - one
      if (!(before >= least && before <= this.length)) return false
      least = before
    }
    return true
  }

  private keep(slot: number, label: string): void {
    if (this.labels.has(slot)) return
    if (this.labels.size < LABELS_MAX) this.kept[this.labels.size] = slot
    else {
      this.labels.delete(this.kept[this.oldest]!)
      this.kept[this.oldest] = slot
      this.oldest = (this.oldest + 1) % LABELS_MAX
    }
    this.labels.set(slot, label)
  }

  private reserve(count: number): void {
    const had = this.order.length
    if (count <= had) return
    const room = Math.max(count, had * 2)
    const grown = <T extends Int32Array | Uint8Array | Float64Array>(to: T, from: T): T => (to.set(from), to)
    this.order = grown(new Int32Array(room), this.order)
    this.seq = grown(new Float64Array(room), this.seq)
    this.ts = grown(new Float64Array(room), this.ts)
    this.kind = grown(new Uint8Array(room), this.kind)
    this.task = grown(new Int32Array(room), this.task)
    this.node = grown(new Int32Array(room), this.node)
    this.state = grown(new Int32Array(room), this.state)
    this.bytes = grown(new Float64Array(room), this.bytes)
  }
}

/** What the indexes of the columns point into. */
export interface Names {
  kinds: readonly string[]
  states: readonly string[]
  tasks: readonly Task[]
}

/** Which rows are shown; "" and 0 for any. The same as the filters of `agentmesh trace`, said in the same words. */
export interface Filter {
  kind: string
  /** Status events that name this state. */
  state: string
  /** Name of an agent, in any letter case, or its id. */
  agent: string
  task: string
  /** Only calls that failed or were rejected, and what went wrong elsewhere. */
  failed: boolean
  /** Microseconds since 1970, both included. */
  since: number
  until: number
}

export const NO_FILTER: Filter = { kind: '', state: '', agent: '', task: '', failed: false, since: 0, until: 0 }

/** Say whether a call came to a bad end. */
export function isFailed(state: string): boolean {
  return state === 'failed' || state === 'rejected'
}

/** Say whether a filter lets a call through, as far as it says something of calls. */
export function taskFits(task: Task, filter: Filter): boolean {
  const agent = filter.agent.toLowerCase()
  return (
    (!agent || task.agent_id === filter.agent || task.agent.toLowerCase() === agent) &&
    (!filter.task || task.task_id === filter.task) &&
    (!filter.failed || isFailed(task.state))
  )
}

/**
 * Return the positions of the rows that a filter lets through, in order; null for all of them.
 *
 * @param into - Memory to use again, if it is large enough.
 */
export function select(rows: Rows, names: Names, filter: Filter, into: Int32Array<ArrayBuffer> = new Int32Array(0)): Int32Array<ArrayBuffer> | null {
  const { kind, state, agent, task, failed, since, until } = filter
  if (!kind && !state && !agent && !task && !failed && !since && !until) return null
  const found = into.length >= rows.length ? into : new Int32Array(rows.order.length)
  const byTask = agent !== '' || task !== '' || failed
  const fits = Uint8Array.from(names.tasks, (one) => (taskFits(one, filter) ? 1 : 0))
  const wantedKind = names.kinds.indexOf(kind)
  const wantedState = names.states.indexOf(state)
  const error = agent === '' && task === '' ? names.kinds.indexOf('error') : -1
  let count = 0
  for (let position = 0; position < rows.length; position++) {
    const slot = rows.order[position]!
    if (kind && rows.kind[slot] !== wantedKind) continue
    if (state && (wantedState < 0 || rows.state[slot] !== wantedState)) continue
    if (byTask && fits[rows.task[slot]!] !== 1 && !(failed && rows.kind[slot] === error)) continue
    if (since && rows.ts[slot]! < since) continue
    if (until && rows.ts[slot]! > until) continue
    found[count++] = position
  }
  return found.subarray(0, count)
}

/** Return the calls as a tree, each below the one that caused it, brothers by their beginning; indexes into `tasks`. */
export function tree(tasks: readonly Task[]): number[] {
  const below = new Map<number, number[]>()
  tasks.forEach((one, index) => {
    const parent = one.parent >= 0 && one.parent < tasks.length && one.parent !== index ? one.parent : -1
    const brothers = below.get(parent)
    if (brothers) brothers.push(index)
    else below.set(parent, [index])
  })
  const byBegin = (a: number, b: number) => tasks[a]!.first_ts - tasks[b]!.first_ts || a - b
  for (const brothers of below.values()) brothers.sort(byBegin)
  const out: number[] = []
  const seen = new Set<number>()
  // With a stack of its own: a chain of calls may be longer than the engine's.
  const visit = (roots: readonly number[]) => {
    const open = [...roots].reverse()
    while (open.length) {
      const index = open.pop()!
      if (seen.has(index)) continue
      seen.add(index)
      out.push(index)
      const children = below.get(index)
      if (children) for (let one = children.length - 1; one >= 0; one--) open.push(children[one]!)
    }
  }
  visit(below.get(-1) ?? [])
  // Calls that name each other as cause hang from nothing; they are shown all the same.
  if (out.length < tasks.length) visit(tasks.map((_, index) => index))
  return out
}
