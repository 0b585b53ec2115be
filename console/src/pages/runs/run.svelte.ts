/**
 * One run as the page holds it: the first rows at once, the rest in pieces while the page is idle, then what comes since, by ticks.
 * The other nodes that took part are asked when this one's rows are there, so that a slow one holds nothing up.
 */
import { untrack } from 'svelte'
import { ApiError, client, got, type Schemas } from '../../lib/api'
import { onTick, type Tick } from '../../lib/live.svelte'
import { Stretches } from './axis'
import { Rows, type Task } from './rows'

type Answer = Schemas['TraceRows']

/** Rows of the first answer, which is painted before anything else is asked for. */
const FIRST = 1_000
const PIECE = 20_000
/** Between two questions for news, and until the other nodes are asked again, milliseconds. */
const REST_MS = 100
const OTHERS_MS = 2_000
/** Between two attempts to begin anew when rows and count do not fit. */
const ANEW_MS = 5_000
/** Labels asked for again at once. */
const LABELS = 1_000

export class Run {
  /** Replaced when the run is loaded anew. */
  rows = new Rows()
  stretches = new Stretches()
  private changes = $state(0)
  private relabelled = $state(0)
  /** The newest answer without its rows; `count` and `digest` are those of the rows held, once all are. */
  head = $state.raw<Omit<Answer, 'rows'>>()
  error = $state.raw<ApiError>()
  /** Whether every row of the run is held. */
  loaded = $state(false)
  /** Whether the other nodes are being asked for the first time. */
  asking = $state(false)
  /** Nodes that could not be asked. */
  missing = $state.raw<readonly string[]>([])

  private stopped = new AbortController()
  private upto = 0
  private asked = false
  private busy = false
  private again = false
  private anewMs = -ANEW_MS
  private anewDue: ReturnType<typeof setTimeout> | undefined
  private othersDue: ReturnType<typeof setTimeout> | undefined
  private labelsAsked = ''

  constructor(readonly ref: string) {}

  /** Counts changes of the rows: whatever reads `rows` reads this first to be told. */
  get version(): number {
    return this.changes
  }

  get tasks(): readonly Task[] {
    return this.head?.tasks ?? []
  }

  /** Begin; returns what ends it. */
  start(): () => void {
    // What it reads while it begins is not what it depends on.
    untrack(() => void this.load())
    const off = onTick((tick) => this.hear(tick))
    const seen = () => document.hidden || this.news()
    document.addEventListener('visibilitychange', seen)
    return () => {
      off()
      document.removeEventListener('visibilitychange', seen)
      clearTimeout(this.othersDue)
      clearTimeout(this.anewDue)
      this.stopped.abort()
    }
  }

  /** Ask for everything again. */
  reload(): void {
    if (this.busy) this.anew()
    else void this.load()
  }

  /** Return what a row says, "" while it is not known; reactive. */
  label(slot: number): string {
    void this.relabelled
    return this.rows.label(slot) ?? ''
  }

  /** See to it that the labels of these positions are held, rising. */
  needLabels(positions: Iterable<number>): void {
    let first = -1
    for (const position of positions)
      if (this.rows.label(this.rows.order[position]!) === undefined) {
        first = position
        break
      }
    const asked = `${first} ${this.upto}`
    if (first < 0 || !this.loaded || asked === this.labelsAsked) return
    this.labelsAsked = asked
    this.ask({ start: first, upto: this.upto, limit: LABELS }).then(
      (answer) => {
        this.rows.relabel(answer.rows)
        this.relabelled++
      },
      () => {
        // Rows without their text stay readable; the next look asks again.
        this.labelsAsked = ''
      },
    )
  }

  private hear(tick: Tick): void {
    if (tick.resync || tick.runs.includes(this.head?.run_id ?? '')) this.news()
  }

  /** Ask for what came since. */
  private news(): void {
    if (document.hidden && this.loaded) return
    this.again = true
    if (this.busy) return
    // A first attempt may have failed: the daemon was away.
    void (this.loaded ? this.tail(false) : this.load())
  }

  private async ask(query: { start?: number; upto?: number; after?: number; limit?: number; remote?: boolean }): Promise<Answer> {
    return got(
      client.GET('/api/v1/runs/{ref}/rows', {
        params: { path: { ref: this.head?.run_id ?? this.ref }, query: { remote: false, ...query } },
        signal: this.stopped.signal,
      }),
    )
  }

  private async load(): Promise<void> {
    await this.guarded(async () => {
      const first = await this.ask({ limit: FIRST })
      // What is shown stays until the new rows are here.
      this.rows = new Rows()
      this.stretches = new Stretches()
      this.loaded = false
      this.upto = first.upto
      this.take(first, first)
      for (let answer = first; answer.more; ) {
        if (this.rows.length > PIECE) await idle()
        answer = await this.ask({ start: this.rows.length, upto: this.upto, limit: PIECE })
        if (!this.take(answer, first)) return this.anew()
      }
      this.loaded = true
      this.changes++
      if (this.rows.length !== first.count) this.anew()
    })
    if (!this.error && !this.stopped.signal.aborted && Object.keys(this.head?.nodes ?? {}).length > 1) await this.tail(true)
    else if (this.again) this.news()
  }

  /** Ask for what came since `upto`; with `others`, the other nodes too. */
  private async tail(others: boolean): Promise<void> {
    if (!this.loaded) return
    const had = this.rows.length
    await this.guarded(async () => {
      this.again = false
      this.asking = others && !this.asked
      const first = await this.ask({ after: this.upto, limit: PIECE, remote: others })
      if (others) {
        this.missing = first.missing_nodes
        this.asked = true
      }
      let fits = this.take(first, first)
      for (let answer = first, start = 0; fits && answer.more; ) {
        start += answer.rows.seq.length
        await idle()
        answer = await this.ask({ after: this.upto, upto: first.upto, start, limit: PIECE })
        fits = this.take(answer, first)
      }
      const back = first.upto < this.upto
      this.upto = first.upto
      if (!fits || back || this.rows.length !== first.count) this.anew()
    })
    this.asking = false
    if (this.stopped.signal.aborted) return
    if (this.rows.length > had && Object.keys(this.head?.nodes ?? {}).length > 1)
      this.othersDue ??= setTimeout(() => {
        this.othersDue = undefined
        if (this.busy) this.again = true
        else void this.tail(true)
      }, OTHERS_MS)
    setTimeout(() => this.again && this.news(), REST_MS)
  }

  /** Take an answer in; `of` says what the run counts when all of it is here. */
  private take(answer: Answer, of: Answer): boolean {
    const from = this.rows.length
    if (!this.rows.merge(answer.rows, this.loaded)) return false
    for (let slot = from; slot < this.rows.length; slot++) this.stretches.add(this.rows.ts[slot]!)
    const { rows: _, ...head } = answer
    this.head = { ...head, count: of.count, digest: of.digest }
    this.changes++
    return true
  }

  /** Load the run again: the log is another one, or lost events; not more often than every few seconds. */
  private anew(): void {
    const waitMs = Math.max(0, this.anewMs + ANEW_MS - performance.now())
    this.anewDue ??= setTimeout(() => {
      this.anewDue = undefined
      this.anewMs = performance.now()
      this.reload()
    }, waitMs)
  }

  private async guarded(work: () => Promise<void>): Promise<void> {
    this.busy = true
    try {
      await work()
      this.error = undefined
    } catch (problem) {
      if (!this.stopped.signal.aborted)
        this.error = problem instanceof ApiError ? problem : new ApiError(0, 'console.bug', String(problem))
    } finally {
      this.busy = false
    }
  }
}

/** Wait until the browser has nothing better to do. */
function idle(): Promise<void> {
  return new Promise((go) => {
    if (typeof requestIdleCallback === 'function') requestIdleCallback(() => go(), { timeout: 300 })
    else setTimeout(go, 16)
  })
}
