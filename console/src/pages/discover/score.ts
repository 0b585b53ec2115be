/** A score in figures, as `agentmesh discover --explain` prints it. Pure. */
import type { Schemas } from '../../lib/api'

type Score = Schemas['ScoreView']
type Mix = Schemas['WeightsView']

export const PARTS = ['text', 'trust', 'health'] as const
export type Part = (typeof PARTS)[number]

/** Two digits after the point, a half going to the even digit as in Python's `:.2f`. */
export function two(value: number): string {
  const at = value * 100
  const below = Math.floor(at)
  // Only eighths lie exactly between two hundredths; all else both languages round alike.
  return Number.isInteger(value * 8) && at - below === 0.5 ? ((below + (below % 2 === 0 ? 0 : 1)) / 100).toFixed(2) : value.toFixed(2)
}

/** "0.95 = 0.70·0.93 + 0.20·1.00 + 0.10·1.00": text, trust, health. */
export function sumOf(score: Score, mix: Mix): string {
  return `${two(score.total)} = ` + PARTS.map((part) => `${two(mix[part])}·${two(score[part])}`).join(' + ')
}

/** How long each part of the bar is, as shares of a whole score of 1; never more than 1 in all. */
export function lengthsOf(score: Score, mix: Mix): { part: Part; share: number }[] {
  let left = 1
  return PARTS.map((part) => {
    const share = Math.min(left, Math.max(0, mix[part] * score[part]) || 0)
    left -= share
    return { part, share }
  })
}
