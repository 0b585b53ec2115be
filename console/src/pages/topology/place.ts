/**
 * Where things are. Marks stand in their group in a spiral, each at a place of its own that it keeps; groups are laid out by
 * ForceAtlas2 in a worker, where those that were placed before stay. So nothing moves when nothing changed, and little when little did.
 */

export interface Spot {
  readonly x: number
  readonly y: number
}

/** What the worker is asked: groups with their radius and where they are, and how strongly they are tied. */
export interface Question {
  readonly id: number
  readonly radii: number[]
  readonly xs: number[]
  readonly ys: number[]
  readonly fixed: boolean[]
  /** Flat triples: from, to, weight. */
  readonly ties: number[]
}

export interface Answer {
  readonly id: number
  readonly xs: number[]
  readonly ys: number[]
}

const SPACING = 3.4
const GOLDEN = Math.PI * (3 - Math.sqrt(5))

/** The place of the n-th mark of a group, from the group's middle; a mark has the radius 1. */
export function spotOf(n: number): Spot {
  const radius = SPACING * Math.sqrt(n + 0.35)
  return { x: radius * Math.cos(n * GOLDEN), y: radius * Math.sin(n * GOLDEN) }
}

/** The radius of a group with so many places taken. */
export function radiusOf(places: number): number {
  return places === 0 ? 2.4 : SPACING * Math.sqrt(places - 1 + 0.35) + 2.2
}

/** The radius of a closed group: by the number of its marks, so that a large one looks large. */
export function closedRadius(marks: number): number {
  return 2.4 + 0.5 * Math.sqrt(marks)
}

/** Hands out places: who had one keeps it, newcomers get the lowest that is free. */
export class Places {
  readonly #of = new Map<string, Map<string, number>>()

  /** Return the place of each mark of a group. Those that are gone lose theirs. */
  take(group: string, marks: readonly string[]): Map<string, number> {
    const before = this.#of.get(group) ?? new Map<string, number>()
    const now = new Map<string, number>()
    for (const mark of marks) {
      const kept = before.get(mark)
      if (kept !== undefined) now.set(mark, kept)
    }
    // With half of the places empty the group would look hollow: then all move together.
    const sparse = Math.max(-1, ...now.values()) + 1 > 2 * marks.length
    if (sparse) now.clear()
    const taken = new Set(now.values())
    let next = 0
    for (const mark of marks) {
      if (now.has(mark)) continue
      while (taken.has(next)) next++
      taken.add(next)
      now.set(mark, next)
    }
    this.#of.set(group, now)
    return now
  }
}

/** First places of groups that have none: own in the middle, the others around it, in order. Deterministic. */
export function firstSpots(radii: readonly number[]): Spot[] {
  const mean = radii.reduce((total, one) => total + one, 0) / Math.max(1, radii.length)
  const largest = Math.max(0, ...radii)
  return radii.map((_, n) => {
    if (n === 0) return { x: 0, y: 0 }
    const radius = largest + 2 * mean * Math.sqrt(n)
    return { x: radius * Math.cos((n - 1) * GOLDEN), y: radius * Math.sin((n - 1) * GOLDEN) * 0.8 }
  })
}

/** Push groups that overlap apart, in place; fixed ones stay. */
export function separate(question: Question, xs: number[], ys: number[], gap: number): void {
  const n = xs.length
  const rounds = n <= 100 ? 60 : n <= 500 ? 20 : 4
  for (let round = 0; round < rounds; round++) {
    let moved = false
    for (let i = 0; i < n; i++) {
      for (let j = i + 1; j < n; j++) {
        const least = at(question.radii, i) + at(question.radii, j) + gap
        let dx = at(xs, j) - at(xs, i)
        let dy = at(ys, j) - at(ys, i)
        let far = Math.hypot(dx, dy)
        if (far >= least) continue
        if (far < 1e-6) {
          dx = Math.cos(j * GOLDEN)
          dy = Math.sin(j * GOLDEN)
          far = 1
        }
        const push = (least - Math.hypot(at(xs, j) - at(xs, i), at(ys, j) - at(ys, i))) / far
        const shareI = question.fixed[i] ? 0 : question.fixed[j] ? 1 : 0.5
        const shareJ = question.fixed[j] ? 0 : 1 - shareI
        if (shareI + shareJ === 0) continue
        xs[i] = at(xs, i) - dx * push * shareI
        ys[i] = at(ys, i) - dy * push * shareI
        xs[j] = at(xs, j) + dx * push * shareJ
        ys[j] = at(ys, j) + dy * push * shareJ
        moved = true
      }
    }
    if (!moved) return
  }
}

/** Draw groups together, in place, until most of them nearly touch: the forces know no frame, and what is far apart is drawn small. */
export function gather(radii: readonly number[], xs: number[], ys: number[], gap: number): void {
  const n = xs.length
  if (n < 2 || n > 1_000) return
  const tight: number[] = []
  for (let i = 0; i < n; i++) {
    let most = 0
    for (let j = 0; j < n; j++) {
      const far = Math.hypot(at(xs, i) - at(xs, j), at(ys, i) - at(ys, j))
      if (i !== j) most = Math.max(most, (at(radii, i) + at(radii, j) + 2 * gap) / Math.max(far, 1e-6))
    }
    tight.push(most)
  }
  tight.sort((a, b) => a - b)
  const factor = Math.min(1, at(tight, Math.floor(n / 2)))
  for (let i = 0; i < n; i++) {
    xs[i] = at(xs, i) * factor
    ys[i] = at(ys, i) * factor
  }
}

export function at(list: readonly number[], index: number): number {
  return list[index] ?? 0
}
