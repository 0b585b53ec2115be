/**
 * Time as a picture: where something happened it has its length, and where nothing did for more than ten seconds it is folded to
 * a mark. Times come from many clocks and from anyone: a clock that jumps makes a fold, never a negative length.
 */

/** Silence longer than this is folded, microseconds. */
export const FOLD_US = 10_000_000
/** At most so many stretches are kept apart; beyond, the shortest silence between two is not folded any more. */
export const STRETCHES_MAX = 400

/** When something happened: stretches of time without a silence of more than `FOLD_US`, rising. */
export class Stretches {
  readonly begin: number[] = []
  readonly end: number[] = []

  /** Take a time in; anything that is no time is left out. */
  add(ts: number): void {
    if (!(ts > 0 && ts < Infinity)) return
    const { begin, end } = this
    // The first stretch that does not end long before.
    let low = 0
    let high = begin.length
    const last = high - 1
    if (last >= 0 && begin[last]! <= ts) low = end[last]! + FOLD_US < ts ? high : last
    else
      while (low < high) {
        const middle = (low + high) >> 1
        if (end[middle]! + FOLD_US < ts) low = middle + 1
        else high = middle
      }
    if (low === begin.length || ts + FOLD_US < begin[low]!) {
      begin.splice(low, 0, ts)
      end.splice(low, 0, ts)
      if (begin.length > STRETCHES_MAX) this.joinNearest()
      return
    }
    if (ts < begin[low]!) begin[low] = ts
    if (ts > end[low]!) {
      end[low] = ts
      if (low + 1 < begin.length && begin[low + 1]! - ts <= FOLD_US) this.join(low)
    }
  }

  get first(): number {
    return this.begin[0] ?? 0
  }

  get last(): number {
    return this.end[this.end.length - 1] ?? 0
  }

  private join(at: number): void {
    this.end[at] = this.end[at + 1]!
    this.begin.splice(at + 1, 1)
    this.end.splice(at + 1, 1)
  }

  private joinNearest(): void {
    let best = 0
    for (let at = 1; at + 1 < this.begin.length; at++)
      if (this.begin[at + 1]! - this.end[at]! < this.begin[best + 1]! - this.end[best]!) best = at
    this.join(best)
  }
}

/** A silence that is drawn as a mark. */
export interface Fold {
  readonly x: number
  readonly width: number
  /** How long it lasted, microseconds. */
  readonly us: number
}

/** Widest mark of a fold, and the share of the width that all of them may take. */
const FOLD_PX = 26
const FOLD_SHARE = 0.35

/** From times to places between 0 and `width`, rising, and back. */
export class Axis {
  readonly folds: readonly Fold[]
  /** Places and times of the corners of the line that the axis is, both rising. */
  private readonly xs: Float64Array
  private readonly times: Float64Array
  /** The corner before the time that was looked for last: the next one is often beside it. */
  private near = 0

  /**
   * @param stretches - When something happened.
   * @param since,until - What is to be seen of it; 0 for all.
   */
  constructor(
    stretches: Stretches,
    readonly width: number,
    since = 0,
    until = 0,
  ) {
    const low = since || stretches.first
    const high = Math.max(low, until || stretches.last)
    const parts: [number, number][] = []
    for (let at = 0; at < stretches.begin.length; at++) {
      const begin = Math.max(low, stretches.begin[at]!)
      const end = Math.min(high, stretches.end[at]!)
      if (begin <= end) parts.push([begin, end])
    }
    if (!parts.length) parts.push([low, high])
    const gap = parts.length > 1 ? Math.min(FOLD_PX, (width * FOLD_SHARE) / (parts.length - 1)) : 0
    const room = width - gap * (parts.length - 1)
    const total = parts.reduce((sum, [begin, end]) => sum + (end - begin), 0)
    // Half of the room of many stretches is shared equally, so that a moment between two silences can be seen.
    const base = parts.length > 1 ? (room * 0.3) / parts.length : 0
    const scale = total > 0 ? (room - base * parts.length) / total : 0
    this.xs = new Float64Array(parts.length * 2)
    this.times = new Float64Array(parts.length * 2)
    const folds: Fold[] = []
    let x = 0
    parts.forEach(([begin, end], index) => {
      const wide = total > 0 ? base + (end - begin) * scale : room / parts.length
      this.xs[index * 2] = x
      this.xs[index * 2 + 1] = x + wide
      this.times[index * 2] = begin
      this.times[index * 2 + 1] = end
      x += wide
      const next = parts[index + 1]
      if (next) {
        folds.push({ x, width: gap, us: next[0] - end })
        x += gap
      }
    })
    this.folds = folds
  }

  get since(): number {
    return this.times[0]!
  }

  get until(): number {
    return this.times[this.times.length - 1]!
  }

  /** Return the place of a time; before the first is 0, after the last is the width. */
  x(ts: number): number {
    const { times, xs, near } = this
    if (!(ts > times[near]! && ts < times[near + 1]!)) {
      if (!(ts > times[0]!)) return xs[0]!
      if (ts >= times[times.length - 1]!) return xs[xs.length - 1]!
      this.near = before(ts, times)
    }
    return along(ts, this.near, times, xs)
  }

  /** Return the time at a place. */
  at(x: number): number {
    const { times, xs } = this
    if (!(x > xs[0]!)) return times[0]!
    if (x >= xs[xs.length - 1]!) return times[times.length - 1]!
    return along(x, before(x, xs), xs, times)
  }
}

/** Return the last corner, but for the very last, that does not lie after a value. */
function before(value: number, corners: Float64Array): number {
  let low = 0
  let high = corners.length - 1
  while (low + 1 < high) {
    const middle = (low + high) >> 1
    if (corners[middle]! <= value) low = middle
    else high = middle
  }
  return low
}

/** Read off the straight line between a corner and the next. */
function along(value: number, at: number, from: Float64Array, to: Float64Array): number {
  const wide = from[at + 1]! - from[at]!
  return wide > 0 ? to[at]! + ((value - from[at]!) / wide) * (to[at + 1]! - to[at]!) : to[at]!
}

/** Which rows of one height are in sight of a box that scrolls: the first, and the one after the last. */
export function inSight(top: number, height: number, rowPx: number, count: number, more: number): [number, number] {
  const from = Math.max(0, Math.min(count, Math.floor(top / rowPx) - more))
  return [from, Math.max(from, Math.min(count, Math.ceil((top + height) / rowPx) + more))]
}
