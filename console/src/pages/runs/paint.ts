/** What the two canvases of the timeline show. They repeat in a picture what the rows say in words. */
import type { Axis } from './axis'
import { isFailed } from './rows'

/** Colours as they are now; canvases know no custom properties. */
export interface Palette {
  surface: string
  line: string
  span: string
  plain: string
  ok: string
  warn: string
  bad: string
  info: string
}

const NAMES: Record<keyof Palette, string> = {
  surface: '--surface',
  line: '--line',
  span: '--line-strong',
  plain: '--ink-3',
  ok: '--ok',
  warn: '--warn',
  bad: '--bad',
  info: '--info',
}

/** Read the colours of the theme at an element. */
export function palette(at: HTMLElement): Palette {
  const probe = document.createElement('span')
  probe.hidden = true
  at.append(probe)
  const found = {} as Palette
  for (const [name, property] of Object.entries(NAMES) as [keyof Palette, string][]) {
    probe.style.color = `var(${property})`
    found[name] = getComputedStyle(probe).color
  }
  probe.remove()
  return found
}

export type Tone = 'plain' | 'ok' | 'warn' | 'bad' | 'info'

/** Which tone a state or kind has; the word beside it says the same. */
export function toneOf(kind: string, state: string): Tone {
  if (kind === 'error' || isFailed(state)) return 'bad'
  if (state === 'completed') return 'ok'
  if (state === 'canceled' || state === 'input-required') return 'warn'
  return kind === 'status' ? 'info' : 'plain'
}

/** One row of the picture: the span of its call as a thin line, and what it is about itself as a bar; times in microseconds. */
export interface Bar {
  readonly begin: number
  readonly end: number
  readonly callBegin: number
  readonly callEnd: number
  readonly tone: Tone
  readonly failed: boolean
}

/** Make a canvas as sharp as the screen and return what draws on it, cleared. */
export function surface(canvas: HTMLCanvasElement, width: number, height: number): CanvasRenderingContext2D | null {
  const dense = Math.min(window.devicePixelRatio || 1, 3)
  const [wide, high] = [Math.max(1, Math.round(width * dense)), Math.max(1, Math.round(height * dense))]
  if (canvas.width !== wide) canvas.width = wide
  if (canvas.height !== high) canvas.height = high
  const to = canvas.getContext('2d')
  to?.setTransform(dense, 0, 0, dense, 0, 0)
  to?.clearRect(0, 0, width, height)
  return to
}

/** Draw rows `bars`, each `rowPx` high; in a `narrow` place as a strip at the foot of the row. */
export function paintBars(to: CanvasRenderingContext2D, axis: Axis, bars: readonly Bar[], rowPx: number, colours: Palette, narrow: boolean): void {
  // Below text, where there is no column for the picture, lines would strike it through.
  if (!narrow) paintFolds(to, axis, bars.length * rowPx, colours)
  const high = narrow ? 4 : Math.min(12, rowPx - 12)
  bars.forEach((bar, at) => {
    const foot = narrow ? (at + 1) * rowPx - high - 1 : at * rowPx + (rowPx - high) / 2
    const middle = foot + high / 2
    const [from, till] = [axis.x(bar.callBegin), axis.x(bar.callEnd)]
    to.fillStyle = colours.span
    if (till > from) to.fillRect(from, middle - 0.5, till - from, 1)
    const left = Math.min(axis.x(bar.begin), axis.width - 3)
    const wide = Math.max(3, axis.x(bar.end) - left)
    to.fillStyle = colours[bar.tone]
    to.beginPath()
    to.roundRect(left, foot, wide, high, Math.min(3, wide / 2))
    to.fill()
    if (bar.failed && !narrow) {
      // A cross at the end, on the bar where there is no room behind it: failure is a shape too.
      const inside = left + wide + 14 > axis.width
      const x = inside ? Math.max(left + 6, left + wide - 8) : left + wide + 8
      to.strokeStyle = inside && wide > 14 ? colours.surface : colours.bad
      to.lineWidth = 2
      to.beginPath()
      to.moveTo(x - 4, middle - 4)
      to.lineTo(x + 4, middle + 4)
      to.moveTo(x + 4, middle - 4)
      to.lineTo(x - 4, middle + 4)
      to.stroke()
    }
  })
}

function paintFolds(to: CanvasRenderingContext2D, axis: Axis, height: number, colours: Palette): void {
  to.strokeStyle = colours.line
  to.lineWidth = 1
  to.setLineDash([3, 3])
  to.beginPath()
  for (const fold of axis.folds) {
    for (const x of fold.width > 6 ? [fold.x + 2, fold.x + fold.width - 2] : [fold.x + fold.width / 2]) {
      to.moveTo(Math.round(x) + 0.5, 0)
      to.lineTo(Math.round(x) + 0.5, height)
    }
  }
  to.stroke()
  to.setLineDash([])
}

/** Draw how much happened when, `counts` of it and `bad` of those failures, one entry per two pixels. */
export function paintMap(to: CanvasRenderingContext2D, axis: Axis, counts: Uint32Array, bad: Uint32Array, height: number, colours: Palette): void {
  paintFolds(to, axis, height, colours)
  const most = counts.reduce((a, b) => Math.max(a, b), 1)
  const tall = (count: number) => (count ? Math.max(3, (Math.log1p(count) / Math.log1p(most)) * (height - 6)) : 0)
  counts.forEach((count, at) => {
    if (!count) return
    to.fillStyle = colours.info
    to.fillRect(at * 2, height - tall(count), 2, tall(count))
    if (bad[at]) {
      to.fillStyle = colours.bad
      to.fillRect(at * 2 - 1, 0, 4, 4)
      to.fillRect(at * 2, height - tall(bad[at]), 2, tall(bad[at]))
    }
  })
}
