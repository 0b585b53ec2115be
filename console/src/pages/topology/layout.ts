/** ForceAtlas2 over groups; runs in a worker (`layout.worker.ts`). */
import iterate from 'graphology-layout-forceatlas2/iterate'
import { at, gather, separate, type Answer, type Question } from './place'

const PER_NODE = 10
/** Between two groups, in radii of a mark. */
const GAP = 3

/** Return where the groups are; those that are fixed are where they were. */
export function layout(question: Question): Answer {
  const n = question.radii.length
  const nodes = new Float32Array(n * PER_NODE)
  for (let i = 0; i < n; i++) {
    nodes.set([at(question.xs, i), at(question.ys, i), 0, 0, 0, 0, 1, 1, at(question.radii, i) + GAP / 2, question.fixed[i] ? 1 : 0], i * PER_NODE)
  }
  const ties = new Float32Array(question.ties.length)
  for (let e = 0; e < question.ties.length; e += 3) {
    const from = at(question.ties, e) * PER_NODE
    const to = at(question.ties, e + 1) * PER_NODE
    const weight = at(question.ties, e + 2)
    ties.set([from, to, weight], e)
    nodes[from + 6] = (nodes[from + 6] ?? 0) + weight
    nodes[to + 6] = (nodes[to + 6] ?? 0) + weight
  }
  const many = n > 200
  const settings = {
    linLogMode: false,
    outboundAttractionDistribution: false,
    adjustSizes: true,
    edgeWeightInfluence: 1,
    scalingRatio: 12,
    strongGravityMode: false,
    gravity: 1,
    slowDown: 2,
    barnesHutOptimize: many,
    barnesHutTheta: 0.7,
  }
  const rounds = n < 2 || question.fixed.every(Boolean) ? 0 : many ? 80 : 250
  for (let round = 0; round < rounds; round++) iterate(settings, nodes, ties)
  const xs: number[] = []
  const ys: number[] = []
  for (let i = 0; i < n; i++) {
    const x = nodes[i * PER_NODE] ?? 0
    const y = nodes[i * PER_NODE + 1] ?? 0
    const stays = question.fixed[i] || !Number.isFinite(x) || !Number.isFinite(y)
    xs.push(stays ? at(question.xs, i) : x)
    ys.push(stays ? at(question.ys, i) : y)
  }
  if (!question.fixed.some(Boolean)) {
    // A screen is wide: so is the picture.
    for (let i = 0; i < n; i++) {
      xs[i] = at(xs, i) * 1.3
      ys[i] = at(ys, i) * 0.75
    }
    gather(question.radii, xs, ys, GAP)
  }
  separate(question, xs, ys, GAP)
  return { id: question.id, xs, ys }
}
