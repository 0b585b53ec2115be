import { describe, expect, test, vi } from 'vitest'
import { Axis, FOLD_US, inSight, STRETCHES_MAX, Stretches } from './axis'

// A machine may be slow; nothing here waits for time.
vi.setConfig({ testTimeout: 60_000 })

const S = 1_000_000

function made(times: readonly number[]): Stretches {
  const found = new Stretches()
  for (const one of times) found.add(one)
  return found
}

/** The same by sorting everything. */
function simple(times: readonly number[]): [number, number][] {
  const out: [number, number][] = []
  for (const ts of [...times].sort((a, b) => a - b)) {
    const last = out[out.length - 1]
    if (last && ts - last[1] <= FOLD_US) last[1] = ts
    else out.push([ts, ts])
  }
  return out
}

/** Times that are the same for the same seed: bursts, silences, and clocks that jump back. */
function times(seed: number): number[] {
  let state = seed
  const next = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32
  let now = 1000 * S
  return Array.from({ length: 300 }, () => (now = Math.max(1, now + (next() < 0.1 ? 60 : 3) * S * (next() - 0.3))))
}

describe('silences', () => {
  test('are found as by sorting all times, in whatever order they come', () => {
    for (let seed = 1; seed < 100; seed++) {
      const given = times(seed)
      const found = made(given)
      expect(found.begin.map((begin, at) => [begin, found.end[at]])).toEqual(simple(given))
    }
  })
  test('are bounded in number, and what is no time is left out', () => {
    const found = made(Array.from({ length: 5_000 }, (_, at) => 1 + at * 11 * S))
    expect(found.begin.length).toBeLessThanOrEqual(STRETCHES_MAX)
    expect([found.first, found.last]).toEqual([1, 1 + 4_999 * 11 * S])
    for (let at = 0; at < found.begin.length; at++) expect(found.end[at]! >= found.begin[at]!).toBe(true)
    for (const bad of [NaN, Infinity, -1, 0]) found.add(bad)
    expect(found.first).toBe(1)
  })
})

describe('the axis', () => {
  test('rises from 0 to its width, leads back, and folds what is silent', () => {
    for (let seed = 1; seed < 50; seed++) {
      const given = times(seed).sort((a, b) => a - b)
      const axis = new Axis(made(given), 800)
      let before = 0
      for (const ts of given) {
        const x = axis.x(ts)
        expect(x).toBeGreaterThanOrEqual(before)
        expect(x).toBeLessThanOrEqual(800.001)
        expect(Math.abs(axis.at(x) - ts)).toBeLessThan(S)
        before = x
      }
      expect(axis.x(given[0]!)).toBe(0)
      expect(axis.x(given[given.length - 1]!)).toBeCloseTo(800)
      expect(axis.folds.length).toBe(simple(given).length - 1)
      for (const fold of axis.folds) expect(fold.us).toBeGreaterThan(FOLD_US)
    }
  })
  test('gives a burst after an hour of silence its room', () => {
    const axis = new Axis(made([1 * S, 2 * S, 3602 * S, 3603 * S]), 1000)
    expect(axis.folds).toHaveLength(1)
    expect(axis.folds[0]!.us).toBe(3600 * S)
    expect(axis.x(2 * S) - axis.x(1 * S)).toBeGreaterThan(300)
  })
  test('holds with one moment, with nothing, and with a clock of the year 292,000', () => {
    expect(new Axis(made([5 * S]), 500).x(5 * S)).toBe(0)
    expect([0, 500]).toContain(new Axis(made([]), 500).x(5 * S))
    const axis = new Axis(made([1 * S, 2 * S, 2 ** 63]), 500)
    expect(axis.x(2 * S)).toBeGreaterThan(50)
    expect(axis.x(2 ** 63)).toBeLessThanOrEqual(500)
  })
  test('shows a part of the time when asked to', () => {
    const all = made([0.1 * S, 5 * S, 9 * S, 60 * S, 61 * S])
    const axis = new Axis(all, 100, 4 * S, 10 * S)
    expect([axis.since, axis.until]).toEqual([4 * S, 9 * S])
    expect(axis.x(2 * S)).toBe(0)
    expect(axis.x(60 * S)).toBeCloseTo(100)
    expect(axis.folds).toEqual([])
    const empty = new Axis(all, 100, 20 * S, 30 * S)
    expect([empty.since, empty.until]).toEqual([20 * S, 30 * S])
  })
})

describe('rows in sight', () => {
  test('are those of the box and a few around it', () => {
    expect(inSight(0, 100, 10, 1000, 3)).toEqual([0, 13])
    expect(inSight(505, 100, 10, 1000, 3)).toEqual([47, 64])
    expect(inSight(9_990, 100, 10, 1000, 3)).toEqual([996, 1000])
    expect(inSight(9_990, 100, 10, 5, 3)).toEqual([5, 5])
    expect(inSight(0, 100, 10, 0, 3)).toEqual([0, 0])
  })
})
