/** From figures to what people read. Pure, but for the language in use. */
import { locale } from './i18n.svelte'

const CONTROL = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g

/** Make text from elsewhere fit for one line: no control or direction marks, at most `max` characters, the middle left out. */
export function line(text: string, max = 120): string {
  const plain = (text.length > max * 4 ? text.slice(0, max * 4) : text).replace(CONTROL, '·')
  const letters = [...plain]
  if (letters.length <= max && plain.length === text.length) return plain
  const keep = Math.max(2, max - 1)
  return letters.slice(0, Math.ceil(keep / 2)).join('') + '…' + letters.slice(-Math.floor(keep / 2)).join('')
}

/** Shorten an id as the CLI does: of a did:key the first 4 and last 6 characters after "did:key:z6Mk", else the first 8. */
export function shortId(id: string): string {
  if (!id.startsWith('did:key:z6Mk')) return line(id.slice(0, 8), 8)
  const key = id.slice(12)
  return line(key.length <= 10 ? key : `${key.slice(0, 4)}…${key.slice(-6)}`, 11)
}

/** Formats of Intl by what they are for and their language: making one takes longer than a row may. */
const formats = new Map<string, unknown>()
function made<T>(what: string, make: (tag: string) => T): T {
  const key = `${what} ${locale.tag}`
  let found = formats.get(key) as T | undefined
  if (!found) formats.set(key, (found = make(locale.tag)))
  return found
}

export function number(value: number, digits = 0): string {
  return made(`number ${digits}`, (tag) => new Intl.NumberFormat(tag, { maximumFractionDigits: digits })).format(value)
}

export function percent(share: number): string {
  return made('percent', (tag) => new Intl.NumberFormat(tag, { style: 'percent', maximumFractionDigits: 0 })).format(share)
}

/** A duration in microseconds: "870 µs", "12 ms", "3.4 s", "5:07", "2 h 05". Below zero (a clock jumped) it is "0 ms". */
export function span(us: number): string {
  const value = Math.max(0, us)
  if (value < 1_000) return value === 0 ? '0 ms' : `${Math.round(value)} µs`
  if (value < 999_500) return `${value < 9_950 ? (value / 1e3).toFixed(1) : Math.round(value / 1e3)} ms`
  if (value < 59_950_000) return `${(value / 1e6).toFixed(1)} s`
  const s = Math.round(value / 1e6)
  const two = (part: number) => String(part).padStart(2, '0')
  return s < 3600 ? `${Math.floor(s / 60)}:${two(s % 60)}` : `${Math.floor(s / 3600)} h ${two(Math.floor(s / 60) % 60)}`
}

export function bytes(count: number): string {
  if (count < 1000) return `${count} B`
  return count < 1e6 ? `${(count / 1e3).toFixed(1)} kB` : `${(count / 1e6).toFixed(1)} MB`
}

/** Microseconds since 1970 as a time of day, with the date unless it is today. A time that no date can hold is "–". */
export function clock(us: number, now: number = Date.now()): string {
  const at = new Date(us / 1000)
  if (!(at.getTime() < 253_402_300_800_000)) return '–' // the year 10,000: a clock gone mad
  const today = new Date(now).toDateString() === at.toDateString()
  const form = (tag: string) =>
    new Intl.DateTimeFormat(tag, { ...(today ? {} : { dateStyle: 'short' as const }), timeStyle: 'medium' as const, hourCycle: 'h23' })
  return made(today ? 'time' : 'date', form).format(at)
}

/** How long ago, in words: "3 minutes ago". */
export function ago(us: number, now: number = Date.now()): string {
  const s = Math.round((us / 1000 - now) / 1000)
  const form = made('ago', (tag) => new Intl.RelativeTimeFormat(tag, { numeric: 'auto', style: 'short' }))
  const size = Math.abs(s)
  if (!(size < 1e10)) return '–'
  if (size < 60) return form.format(s, 'second')
  if (size < 3600) return form.format(Math.round(s / 60), 'minute')
  if (size < 86_400) return form.format(Math.round(s / 3600), 'hour')
  return form.format(Math.round(s / 86_400), 'day')
}
