/** The rows of a run as they are shown: which of them fit the filters, where each is, and what stands in it. */
import { shortId } from '../../lib/format'
import { toneOf, type Bar } from './paint'
import { isFailed, select, taskFits, tree, type Filter, type Names, type Task } from './rows'
import type { Run } from './run.svelte'

/** Deeper calls are indented no further, or no room would be left for the name. */
const LEVELS_MAX = 6

/** What stands in the row of an event. */
export interface Cells {
  kind: string
  state: string
  label: string
  agent: string
  /** Who called, in the row where the call begins. */
  caller: string
  node: string
  /** Seconds since the first event. */
  time: string
  /** Microseconds until the next event of the call. */
  took: number
  level: number
  ts: number
}

/** What a row is, beside its text. */
export interface Look {
  seq?: number | undefined
  task?: string | undefined
  /** From 1. */
  level: number
  tone: string
}

/** Reads a run through filters. Everything is reactive to both. */
export class Lines {
  private memory = new Int32Array(0)

  constructor(
    private readonly run: Run,
    private readonly asked: () => Filter,
  ) {}

  readonly names: Names = $derived.by(() => ({
    kinds: this.run.head?.kinds ?? [],
    states: this.run.head?.states ?? [],
    tasks: this.run.tasks,
  }))

  /** Positions of the events that fit, rising; null for all. */
  readonly selection = $derived.by(() => {
    void this.run.version
    const found = select(this.run.rows, this.names, this.asked(), this.memory)
    if (found && found.buffer !== this.memory.buffer) this.memory = new Int32Array(found.buffer)
    return found
  })

  /** How many events fit. */
  readonly count = $derived.by(() => {
    void this.run.version
    return this.selection ? this.selection.length : this.run.rows.length
  })

  /** The calls that fit, each below its cause; indexes into the calls of the run. */
  readonly calls = $derived.by(() => {
    const filter = this.asked()
    return tree(this.run.tasks).filter((index) => {
      const task = this.run.tasks[index]!
      return (
        taskFits(task, filter) &&
        (!filter.state || task.state === filter.state) &&
        (!filter.since || task.last_ts >= filter.since) &&
        (!filter.until || task.first_ts <= filter.until)
      )
    })
  })

  /** When the run began, by its first event. */
  get began(): number {
    const { rows } = this.run
    return rows.length ? rows.ts[rows.order[0]!]! : 0
  }

  /** The position in the run of a row shown. */
  positionOf(index: number): number {
    return this.selection?.[index] ?? index
  }

  slotOf(index: number): number {
    return this.run.rows.order[this.positionOf(index)] ?? -1
  }

  /** Return where an event is shown now, -1 if it is not. */
  indexOf(slot: number): number {
    const { rows } = this.run
    const position = rows.order.subarray(0, rows.length).indexOf(slot)
    const { selection } = this
    if (!selection || position < 0) return position
    let low = 0
    let high = selection.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (selection[middle]! < position) low = middle + 1
      else high = middle
    }
    return selection[low] === position ? low : -1
  }

  taskOf(slot: number): Task | undefined {
    return this.run.tasks[this.run.rows.task[slot]!]
  }

  kindOf(slot: number): string {
    return this.names.kinds[this.run.rows.kind[slot]!] ?? ''
  }

  stateOf(slot: number): string {
    return this.names.states[this.run.rows.state[slot]!] ?? ''
  }

  cells(index: number): Cells {
    void this.run.version
    const { rows, head } = this.run
    const slot = this.slotOf(index)
    const task = this.taskOf(slot)
    const state = this.stateOf(slot)
    const ts = rows.ts[slot] ?? 0
    // The state has a place of its own.
    const label = this.run.label(slot)
    return {
      kind: this.kindOf(slot),
      state,
      label: state && label.startsWith(state) ? label.slice(state.length).replace(/^: /, '') : label,
      agent: task?.agent || (task?.agent_id ? shortId(task.agent_id) : ''),
      caller: state === 'submitted' ? (task?.caller ?? '') : '',
      node: head?.nodes[head.node_ids[rows.node[slot]!] ?? ''] ?? '',
      time: since(ts - this.began),
      took: rows.until(this.positionOf(index), this.run.tasks) - ts,
      level: Math.min(LEVELS_MAX, task?.depth ?? 0),
      ts,
    }
  }

  lookOfEvent(index: number): Look {
    const slot = this.slotOf(index)
    const bad = toneOf(this.kindOf(slot), this.stateOf(slot)) === 'bad'
    return { seq: this.run.rows.seq[slot], level: (this.taskOf(slot)?.depth ?? 0) + 1, tone: bad ? 'bad' : '' }
  }

  lookOfCall(index: number): Look {
    const task = this.run.tasks[this.calls[index]!]
    return { task: task?.task_id, level: (task?.depth ?? 0) + 1, tone: isFailed(task?.state ?? '') ? 'bad' : '' }
  }

  barOfEvent(index: number): Bar {
    const slot = this.slotOf(index)
    const task = this.taskOf(slot)
    const begin = this.run.rows.ts[slot] ?? 0
    const tone = toneOf(this.kindOf(slot), this.stateOf(slot))
    return {
      begin,
      end: this.run.rows.until(this.positionOf(index), this.run.tasks),
      callBegin: task?.first_ts ?? begin,
      callEnd: task?.last_ts ?? begin,
      tone,
      failed: tone === 'bad',
    }
  }

  barOfCall(index: number): Bar {
    const task = this.run.tasks[this.calls[index]!]
    const begin = task?.first_ts ?? 0
    const end = Math.max(begin, task?.last_ts ?? 0)
    const state = task?.state ?? ''
    return { begin, end, callBegin: begin, callEnd: end, tone: toneOf('status', state), failed: isFailed(state) }
  }
}

/** Seconds since the first event, as the command line prints them. */
export function since(us: number): string {
  return (us < 0 ? '-' : '+') + (Math.abs(us) / 1e6).toFixed(3)
}
