/** The drawing: a scene on sigma's canvases, kept in step with the scene without moving what stays. */
import Graph from 'graphology'
import Sigma from 'sigma'
import type { Settings } from 'sigma/settings'
import { layout } from './layout'
import { at, closedRadius, firstSpots, Places, radiusOf, spotOf, type Answer, type Question, type Spot } from './place'
import { LINE_PROGRAM, MARK_PROGRAM, type LineData, type MarkData } from './programs'
import { widthOf, type Group, type Line, type Mark, type Scene } from './scene'

/** Colours of the theme, as the browser resolved them. */
export interface Palette {
  readonly ink: string
  readonly dim: string
  readonly line: string
  readonly accent: string
  readonly raised: string
  readonly ok: string
  readonly bad: string
  readonly idle: string
  readonly people: string
  readonly warn: string
}

export interface Words {
  /** What stands at a group. */
  group(group: Group): string
  /** What stands at a line that is looked at. */
  line(line: Line): string
  mark(mark: Mark, chars: number): string
}

export interface Heard {
  /** Something was pressed: a mark, a group, a line, or nothing. */
  pressed(what: { mark?: string; group?: string; line?: string } | null): void
  /** A scene is drawn and stands still. */
  settled(): void
}

interface GroupData extends MarkData {
  isGroup: boolean
}

const KEY = 'agentmesh.topology'
const KEPT_MAX = 2_000
/** From so many pixels of its radius on a mark has its name beside it; up to so many marks all have, room or not; a few always. */
const LABELS_FROM_PX = 5
const FORCED_FROM_PX = 9
const NAMED_MAX = 40
const ALWAYS_NAMED_MAX = 12

const places = new Places()
const known = new Map<string, Spot>(remembered())

function remembered(): [string, Spot][] {
  try {
    const rows: unknown = JSON.parse(sessionStorage.getItem(KEY) ?? '[]')
    if (!Array.isArray(rows)) return []
    return rows.slice(0, KEPT_MAX).flatMap((row: unknown): [string, Spot][] => {
      const [id, x, y] = Array.isArray(row) ? (row as unknown[]) : []
      return typeof id === 'string' && Number.isFinite(x) && Number.isFinite(y) ? [[id, { x: x as number, y: y as number }]] : []
    })
  } catch {
    return []
  }
}

function remember(): void {
  try {
    sessionStorage.setItem(KEY, JSON.stringify([...known].slice(-KEPT_MAX).map(([id, spot]) => [id, Math.round(spot.x * 100) / 100, Math.round(spot.y * 100) / 100])))
  } catch {
    // A browser that keeps nothing lays out anew after a reload.
  }
}

/** The layout's worker; one for the page's life. What it cannot do (no workers), the page does itself. */
class Layouter {
  #worker: Worker | undefined
  #next = 0
  #waiting: ((answer: Answer) => void) | undefined

  ask(question: Omit<Question, 'id'>): Promise<Answer> {
    const asked: Question = { ...question, id: ++this.#next }
    try {
      this.#worker ??= this.#made()
    } catch {
      return Promise.resolve(layout(asked))
    }
    return new Promise((resolve) => {
      this.#waiting = resolve
      this.#worker?.postMessage(asked)
    })
  }

  #made(): Worker {
    const worker = new Worker(new URL('./layout.worker.ts', import.meta.url), { type: 'module' })
    worker.onmessage = (message: MessageEvent<Answer>) => {
      // An answer to an earlier question came too late: the scene is another one by now.
      if (message.data.id === this.#next) this.#waiting?.(message.data)
    }
    return worker
  }

  close(): void {
    this.#worker?.terminate()
    this.#worker = undefined
  }
}

export class Drawing {
  readonly #graph = new Graph({ type: 'directed', multi: false, allowSelfLoops: false })
  readonly #sigma: Sigma
  readonly #layouter = new Layouter()
  readonly #words: Words
  readonly #heard: Heard
  #palette: Palette
  #scene: Scene | undefined
  #chosen: { mark?: string; group?: string; line?: string } = {}
  #near = new Set<string>()
  #hovered = ''
  #over = false
  /** How strongly lines are drawn: the more of them, the thinner. */
  #ink = 0.62

  constructor(container: HTMLElement, palette: Palette, words: Words, heard: Heard) {
    this.#palette = palette
    this.#words = words
    this.#heard = heard
    const still = matchMedia('(prefers-reduced-motion: reduce)').matches
    const settings: Partial<Settings> = {
      allowInvalidContainer: true,
      defaultNodeType: 'mark',
      defaultEdgeType: 'line',
      nodeProgramClasses: { mark: MARK_PROGRAM },
      nodeHoverProgramClasses: { mark: MARK_PROGRAM },
      edgeProgramClasses: { line: LINE_PROGRAM },
      itemSizesReference: 'positions',
      zoomToSizeRatioFunction: (ratio) => ratio,
      minEdgeThickness: 1.2,
      labelFont: getComputedStyle(container).fontFamily,
      labelSize: 12,
      labelWeight: '400',
      labelDensity: 0.6,
      labelGridCellSize: 130,
      labelRenderedSizeThreshold: LABELS_FROM_PX,
      edgeLabelSize: 12,
      edgeLabelFont: getComputedStyle(container).fontFamily,
      renderEdgeLabels: true,
      enableEdgeEvents: true,
      zIndex: true,
      stagePadding: 36,
      minCameraRatio: 0.02,
      maxCameraRatio: 3,
      zoomDuration: still ? 0 : 200,
      inertiaDuration: still ? 0 : 150,
      defaultDrawNodeLabel: (context, data, given) => this.#label(context, data as unknown as GroupData, given.labelFont),
      defaultDrawNodeHover: (context, data, given) => this.#label(context, data as unknown as GroupData, given.labelFont, true),
      defaultDrawEdgeLabel: (context, data, from, to) => this.#lineLabel(context, data.label, from, to),
      nodeReducer: (id, data) => this.#seenNode(id, data as unknown as GroupData),
      edgeReducer: (id, data) => this.#seenLine(id, data as unknown as LineData),
    }
    this.#sigma = new Sigma(this.#graph, container, settings)
    this.#sigma.on('clickNode', ({ node }) => this.#heard.pressed(this.#isGroup(node) ? { group: node.slice(1) } : { mark: node }))
    this.#sigma.on('clickEdge', ({ edge }) => this.#heard.pressed({ line: edge }))
    this.#sigma.on('clickStage', ({ event }) => {
      const group = this.#groupAt(this.#sigma.viewportToGraph(event))
      this.#heard.pressed(group ? { group } : null)
    })
    this.#sigma.on('enterEdge', ({ edge }) => this.#hover(edge))
    this.#sigma.on('leaveEdge', () => this.#hover(''))
    this.#sigma.on('enterNode', ({ node }) => this.#hover(node))
    this.#sigma.on('leaveNode', () => this.#hover(''))
  }

  /** Draw a scene. Groups that were drawn before stay where they are. */
  async show(scene: Scene): Promise<void> {
    this.#scene = scene
    const spots = new Map<string, Map<string, number>>()
    const radii = scene.groups.map((group) => {
      if (!group.open) return closedRadius(group.marks.length)
      const taken = places.take(group.id, busiestFirst(group))
      spots.set(group.id, taken)
      return radiusOf(Math.max(0, Math.max(-1, ...taken.values()) + 1))
    })
    const where = await this.#lay(scene, radii)
    if (this.#over || this.#scene !== scene) return
    this.#ink = Math.max(0.16, Math.min(0.62, 0.62 * Math.sqrt(80 / Math.max(1, scene.lines.length))))
    this.#sigma.setSetting('minEdgeThickness', scene.lines.length > 400 ? 0.7 : 1.2)
    this.#fill(scene, radii, where, spots)
    this.#frame()
    this.#sigma.refresh()
    this.#heard.settled()
  }

  async #lay(scene: Scene, radii: readonly number[]): Promise<Spot[]> {
    const first = firstSpots(radii)
    const fixed = scene.groups.map((group) => known.has(key(group)))
    const start = scene.groups.map((group, i) => known.get(key(group)) ?? first[i] ?? { x: 0, y: 0 })
    let spots: Spot[] = start
    if (scene.groups.length > 1 && (!fixed.every(Boolean) || overlap(start, radii))) {
      const index = new Map(scene.groups.map((group, i) => [group.id, i]))
      const groupOf = new Map(scene.groups.flatMap((group) => group.marks.map((mark) => [mark.id, group.id] as const)))
      const ties = new Map<string, number>()
      for (const line of scene.lines) {
        const from = index.get(groupOf.get(line.from) ?? line.from)
        const to = index.get(groupOf.get(line.to) ?? line.to)
        if (from === undefined || to === undefined || from === to) continue
        const pair = from < to ? `${from} ${to}` : `${to} ${from}`
        ties.set(pair, (ties.get(pair) ?? 0) + Math.log2(2 + line.calls))
      }
      const answer = await this.#layouter.ask({
        radii: [...radii],
        xs: start.map((one) => one.x),
        ys: start.map((one) => one.y),
        // Where a group grew into its neighbours, all but the first may give way.
        fixed: fixed.every(Boolean) ? fixed.map((_, i) => i === 0) : fixed,
        ties: [...ties].flatMap(([pair, weight]) => [...pair.split(' ').map(Number), weight]),
      })
      spots = scene.groups.map((_, i) => ({ x: at(answer.xs, i), y: at(answer.ys, i) }))
    }
    scene.groups.forEach((group, i) => {
      known.delete(key(group))
      known.set(key(group), spots[i] ?? { x: 0, y: 0 })
    })
    remember()
    return spots
  }

  #fill(scene: Scene, radii: readonly number[], where: readonly Spot[], spots: ReadonlyMap<string, Map<string, number>>): void {
    const graph = this.#graph
    const wanted = new Set<string>()
    scene.groups.forEach((group, i) => {
      const middle = where[i] ?? { x: 0, y: 0 }
      const id = '#' + group.id
      wanted.add(id)
      put(graph, id, {
        x: middle.x,
        y: middle.y,
        size: radii[i],
        label: this.#words.group(group),
        shape: 'disc',
        fill: 'solid',
        ring: group.away ? 'dashed' : 'thin',
        isGroup: true,
        tone: group.own ? 'accent' : 'line',
        zIndex: 0,
        forceLabel: scene.groups.length <= 12,
      })
      if (!group.open) return
      const taken = spots.get(group.id)
      for (const mark of group.marks) {
        const spot = spotOf(taken?.get(mark.id) ?? 0)
        wanted.add(mark.id)
        put(graph, mark.id, {
          x: middle.x + spot.x,
          y: middle.y + spot.y,
          size: 1,
          label: this.#words.mark(mark, 28),
          shape: mark.shape,
          fill: mark.fill,
          ring: mark.ring,
          isGroup: false,
          tone: mark.tone,
          zIndex: 1,
        })
      }
    })
    const nodeOf = (end: string) => (graph.hasNode(end) && wanted.has(end) ? end : '#' + end)
    const lines = new Set<string>()
    for (const line of scene.lines) {
      const from = nodeOf(line.from)
      const to = nodeOf(line.to)
      if (!wanted.has(from) || !wanted.has(to)) continue
      lines.add(line.id)
      const data = {
        size: widthOf(line.perMinute),
        dashed: line.relayed,
        aside: line.both,
        bad: line.failures > 0,
        words: this.#words.line(line),
      }
      if (graph.hasEdge(line.id) && graph.source(line.id) === from && graph.target(line.id) === to) graph.mergeEdgeAttributes(line.id, data)
      else {
        if (graph.hasEdge(line.id)) graph.dropEdge(line.id)
        graph.addEdgeWithKey(line.id, from, to, data)
      }
    }
    for (const id of graph.edges()) if (!lines.has(id)) graph.dropEdge(id)
    for (const id of graph.nodes()) if (!wanted.has(id)) graph.dropNode(id)
    this.#choose()
  }

  /** Keep the frame while everything fits into it, so that a newcomer does not shift the whole picture. */
  #frame(again = false): void {
    let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity]
    this.#graph.forEachNode((_, data) => {
      left = Math.min(left, data['x'] - data['size'])
      right = Math.max(right, data['x'] + data['size'])
      low = Math.min(low, data['y'] - data['size'])
      high = Math.max(high, data['y'] + data['size'])
    })
    if (!Number.isFinite(left)) return
    const box = this.#sigma.getCustomBBox()
    const fits = box && left >= box.x[0] && right <= box.x[1] && low >= box.y[0] && high <= box.y[1]
    const roomy = box && right - left < 0.4 * (box.x[1] - box.x[0]) && high - low < 0.4 * (box.y[1] - box.y[0])
    if (fits && !roomy && !again) return
    const margin = 4
    this.#sigma.setCustomBBox({ x: [left - margin, right + margin], y: [low - margin, high + margin] })
  }

  /** Show everything. */
  fit(): void {
    this.#frame(true)
    this.#sigma.refresh()
    void this.#sigma.getCamera().animatedReset({ duration: this.#sigma.getSetting('zoomDuration') })
  }

  zoom(by: number): void {
    const camera = this.#sigma.getCamera()
    const duration = this.#sigma.getSetting('zoomDuration')
    void (by > 1 ? camera.animatedZoom({ factor: by, duration }) : camera.animatedUnzoom({ factor: 1 / by, duration }))
  }

  paint(palette: Palette): void {
    this.#palette = palette
    this.#sigma.refresh({ skipIndexation: true })
  }

  /** Mark what is chosen; the rest steps back. */
  choose(what: { mark?: string; group?: string; line?: string } | null): void {
    this.#chosen = what ?? {}
    this.#choose()
    this.#sigma.refresh({ skipIndexation: true })
  }

  #choose(): void {
    this.#near = new Set()
    const { mark, group, line } = this.#chosen
    const node = mark ?? (group === undefined ? undefined : '#' + group)
    const about = node === undefined ? [] : group === undefined ? [node] : [node, ...(this.#scene?.groups.find((one) => one.id === group)?.marks.map((one) => one.id) ?? [])]
    for (const one of about) {
      if (!this.#graph.hasNode(one)) continue
      this.#near.add(one)
      this.#graph.forEachEdge(one, (id, _, source, target) => {
        this.#near.add(id)
        this.#near.add(source)
        this.#near.add(target)
      })
    }
    if (line !== undefined && this.#graph.hasEdge(line)) for (const one of [line, ...this.#graph.extremities(line)]) this.#near.add(one)
  }

  /** Return the mark or closed group nearest in a direction from another, or the busiest one to begin with. */
  next(from: string, dx: number, dy: number): string {
    const stops = this.#graph.filterNodes((id, data) => !data['isGroup'] || !this.#scene?.groups.some((one) => '#' + one.id === id && one.open && one.marks.length))
    if (!this.#graph.hasNode(from)) return stops[0] ?? ''
    const here = this.#graph.getNodeAttributes(from)
    let best = from
    let least = Infinity
    for (const id of stops) {
      if (id === from) continue
      const there = this.#graph.getNodeAttributes(id)
      const x = there['x'] - here['x']
      const y = there['y'] - here['y']
      const along = x * dx + y * dy
      const across = Math.abs(x * dy - y * dx)
      if (along <= 1e-6 || across > 2 * along) continue
      const cost = along + 2 * across
      if (cost < least) [best, least] = [id, cost]
    }
    return best
  }

  /** Where a node is, in pixels from the top left of the drawing, and its radius. */
  spot(id: string): { x: number; y: number; radius: number } | undefined {
    const data = this.#sigma.getNodeDisplayData(id)
    if (!data) return undefined
    const { x, y } = this.#sigma.framedGraphToViewport(data)
    return { x, y, radius: this.#sigma.scaleSize(data.size) }
  }

  /** Call back after every frame. */
  onFrame(listener: () => void): void {
    this.#sigma.on('afterRender', listener)
  }

  close(): void {
    this.#over = true
    this.#layouter.close()
    this.#sigma.kill()
  }

  #hover(what: string): void {
    this.#hovered = what
    this.#sigma.getContainer().style.cursor = what ? 'pointer' : ''
    this.#sigma.refresh({ skipIndexation: true })
  }

  #isGroup(node: string): boolean {
    return this.#graph.getNodeAttribute(node, 'isGroup') === true
  }

  #groupAt(point: { x: number; y: number }): string | undefined {
    const id = this.#graph.findNode((_, data) => data['isGroup'] && Math.hypot(data['x'] - point.x, data['y'] - point.y) <= data['size'])
    return id?.slice(1)
  }

  #seenNode(id: string, data: GroupData & { tone?: string }): Partial<MarkData> {
    const palette = this.#palette
    const some = this.#near.size > 0
    const aside = some && !this.#near.has(id)
    if (data.isGroup) {
      const chosen = this.#chosen.group === id.slice(1)
      const border = chosen || data.tone === 'accent' ? palette.accent : palette.line
      return { ...data, color: faded(palette.dim, 0.06), ringColor: chosen ? border : faded(border, aside ? 0.5 : 0.9) }
    }
    const tones: Record<string, string> = { ok: palette.ok, bad: palette.bad, idle: palette.idle, people: palette.people }
    const color = tones[data.tone ?? ''] ?? palette.idle
    const chosen = this.#chosen.mark === id
    const marks = this.#scene?.marks ?? 0
    return {
      ...data,
      color: aside ? faded(color, 0.35) : color,
      ringColor: aside ? faded(palette.dim, 0.35) : chosen ? palette.ink : faded(palette.ink, 0.72),
      highlighted: chosen,
      forceLabel: marks <= ALWAYS_NAMED_MAX || (marks <= NAMED_MAX && this.#sigma.scaleSize(1) >= FORCED_FROM_PX),
      zIndex: chosen ? 3 : aside ? 1 : 2,
    }
  }

  #seenLine(id: string, data: LineData & { bad?: boolean; words?: string }): Partial<LineData> & { label?: string } {
    const palette = this.#palette
    const looked = this.#hovered === id || this.#chosen.line === id
    const near = this.#near.has(id)
    const aside = this.#near.size > 0 && !near
    const color = looked || near ? (data.bad ? palette.bad : palette.accent) : data.bad ? palette.bad : palette.dim
    const named = looked || (this.#near.size > 0 && near && this.#near.size < 40) || (this.#hovered !== '' && this.#graph.hasNode(this.#hovered) && this.#graph.hasExtremity(id, this.#hovered) && this.#graph.degree(this.#hovered) < 20)
    return {
      ...data,
      color: faded(color, aside ? 0.12 : looked || near ? 1 : this.#ink),
      zIndex: looked ? 2 : near ? 1 : 0,
      ...(named && data.words ? { label: data.words, forceLabel: true } : { label: '' }),
    }
  }

  #lineLabel(context: CanvasRenderingContext2D, label: string | null | undefined, from: Spot, to: Spot): void {
    if (!label) return
    context.font = `600 12px ${this.#sigma.getSetting('edgeLabelFont')}`
    const wide = context.measureText(label).width
    // Nearer to the callee, so that two lines that go both ways have their words apart.
    const x = from.x + 0.56 * (to.x - from.x)
    const y = from.y + 0.56 * (to.y - from.y)
    context.fillStyle = this.#palette.raised
    context.globalAlpha = 0.9
    context.fillRect(x - wide / 2 - 4, y - 9, wide + 8, 18)
    context.globalAlpha = 1
    context.fillStyle = this.#palette.ink
    context.fillText(label, x - wide / 2, y + 4)
  }

  #label(context: CanvasRenderingContext2D, data: GroupData, font: string, strong = false): void {
    if (!data.label) return
    const size = data.isGroup ? 13 : 12
    context.font = `${data.isGroup || strong ? 600 : 400} ${size}px ${font}`
    context.textAlign = 'center'
    context.textBaseline = data.isGroup ? 'bottom' : 'top'
    const x = data.x
    const y = data.isGroup ? data.y - data.size - 4 : data.y + data.size * 1.7 + 3
    const wide = context.measureText(data.label).width
    context.globalAlpha = strong ? 1 : 0.78
    context.fillStyle = this.#palette.raised
    context.fillRect(x - wide / 2 - 4, data.isGroup ? y - size - 3 : y - 2, wide + 8, size + 5)
    context.globalAlpha = 1
    context.fillStyle = data.isGroup || strong ? this.#palette.ink : this.#palette.dim
    context.fillText(data.label, x, y)
    context.textAlign = 'left'
    context.textBaseline = 'alphabetic'
  }
}

function busiestFirst(group: Group): string[] {
  return [...group.marks].sort((a, b) => b.calls - a.calls || (a.id < b.id ? -1 : 1)).map((mark) => mark.id)
}

function key(group: Group): string {
  return `${group.open ? 'o' : 'c'}${group.id}`
}

function overlap(spots: readonly Spot[], radii: readonly number[]): boolean {
  for (let i = 0; i < spots.length; i++)
    for (let j = i + 1; j < spots.length; j++) {
      const [a, b] = [spots[i], spots[j]]
      if (a && b && Math.hypot(a.x - b.x, a.y - b.y) < at(radii, i) + at(radii, j)) return true
    }
  return false
}

function put(graph: Graph, id: string, data: Record<string, unknown>): void {
  if (graph.hasNode(id)) graph.mergeNodeAttributes(id, data)
  else graph.addNode(id, data)
}

/** A colour as `rgb(r, g, b)`, thinner. */
function faded(color: string, alpha: number): string {
  const parts = color.match(/[\d.]+/g)
  return parts && parts.length >= 3 ? `rgba(${parts[0]}, ${parts[1]}, ${parts[2]}, ${alpha})` : color
}
