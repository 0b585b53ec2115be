/**
 * What is asked, between three forms: the address, the request and the command line. Pure. The command is that of the page:
 * `agentmesh discover` without words and filters lists the directory, and so does the page then.
 */
import type { Schemas } from '../../lib/api'
import { option, quoted } from '../../lib/command'

export type Query = Readonly<Record<string, string>>
export type Request = Schemas['DiscoverRequest']
type Filters = Required<Schemas['DiscoverFilters']>

interface FilterRow {
  /** Its name in the address. */
  readonly key: string
  readonly field: keyof Filters
  readonly flag: string
  readonly kind: 'choice' | 'text' | 'tokens' | 'usd'
  readonly choices?: readonly string[]
  /** Shown before "more filters" is opened. */
  readonly common?: boolean
}

export const FILTERS = [
  { key: 'trust', field: 'trust_tier', flag: 'trust', kind: 'choice', choices: ['low', 'unknown', 'medium', 'high', 'own'], common: true },
  { key: 'protocol', field: 'protocol', flag: 'protocol', kind: 'choice', choices: ['mesh', 'a2a', 'mcp', 'http'], common: true },
  { key: 'tag', field: 'tag', flag: 'tag', kind: 'text', common: true },
  { key: 'skill', field: 'skill', flag: 'skill', kind: 'text' },
  { key: 'model', field: 'model', flag: 'model', kind: 'text' },
  { key: 'window', field: 'context_window_min', flag: 'context-window', kind: 'tokens' },
  { key: 'price', field: 'price_max', flag: 'price', kind: 'usd' },
  { key: 'budget', field: 'budget', flag: 'budget', kind: 'usd' },
  { key: 'location', field: 'location', flag: 'location', kind: 'text' },
  { key: 'organisation', field: 'organisation', flag: 'organisation', kind: 'text' },
  { key: 'node', field: 'node', flag: 'node', kind: 'text' },
] as const satisfies readonly FilterRow[]

export type FilterKey = (typeof FILTERS)[number]['key']

/** As many answers as one look shows, and all that a list without words can have. */
export const HITS = 10
export const LISTED_MAX = 1_000

/** The address → the value of each filter that is set and makes sense; what does not is as if it were not there. */
export function filtersOf(query: Query): { row: FilterRow; value: string }[] {
  return (FILTERS as readonly FilterRow[]).flatMap((row) => {
    const value = (query[row.key] ?? '').trim()
    return value && !wrong(row.key as FilterKey, value) ? [{ row, value }] : []
  })
}

/** Say whether a value of a filter cannot be sent. */
export function wrong(key: FilterKey, value: string): boolean {
  const row: FilterRow | undefined = FILTERS.find((one) => one.key === key)
  const text = value.trim()
  if (!row || !text) return false
  if (row.kind === 'choice') return !row.choices?.includes(text)
  if (row.kind === 'tokens') return !/^[0-9]{1,9}$/.test(text)
  if (row.kind === 'usd') return !/^[0-9]{1,9}(\.[0-9]{1,6})?$/.test(text)
  return [...text].length > 200
}

export interface Mix {
  readonly text: number
  readonly trust: number
  readonly health: number
}

/** Read `w=0.7,0.2,0.1`; null if it is none (three numbers of 0 … 1, not all 0), which stands for the node's own. */
export function mixOf(query: Query): Mix | null {
  const said = query['w'] ?? ''
  if (!/^[0-9.]{1,6}(,[0-9.]{1,6}){2}$/.test(said)) return null
  const [text = NaN, trust = NaN, health = NaN] = said.split(',').map(Number)
  const fits = [text, trust, health].every((one) => one >= 0 && one <= 1) && text + trust + health > 0
  return fits ? { text, trust, health } : null
}

export function mixText(mix: Mix): string {
  return [mix.text, mix.trust, mix.health].map((one) => String(Math.round(one * 100) / 100)).join(',')
}

/** How many hits are asked for: more each time that one asks for more. */
export function limitOf(query: Query): number {
  const said = Number(query['k'])
  return Number.isInteger(said) && said >= 1 && said <= LISTED_MAX ? said : HITS
}

/** Whether the page lists the directory: neither words nor anything that has to be judged. */
export function lists(query: Query): boolean {
  return !wordsOf(query) && filtersOf(query).length === 0
}

export function wordsOf(query: Query): string {
  return (query['q'] ?? '').trim()
}

export function requestOf(query: Query): Request {
  const filters: Record<string, unknown> = {}
  for (const { row, value } of filtersOf(query)) filters[row.field] = row.kind === 'tokens' ? Number(value) : value
  if (query['healthy']) filters['health'] = 'healthy'
  const words = wordsOf(query)
  return {
    query: words,
    filters: filters as Schemas['DiscoverFilters'],
    weights: mixOf(query) as Schemas['WeightsView'] | null,
    limit: words ? limitOf(query) : LISTED_MAX,
    near: 3,
    scope: query['local'] ? 'local' : 'mesh',
    time_ms: 800,
  }
}

/** The command that prints the same. */
export function commandOf(query: Query): string {
  const words = wordsOf(query)
  const said = ['agentmesh discover']
  if (words) said.push(words.startsWith('-') ? quoted(`--query=${words}`) : quoted(words))
  for (const { row, value } of filtersOf(query)) said.push(option(row.flag, value))
  if (query['healthy']) said.push('--healthy')
  if (lists(query)) return said.join(' ')
  const mix = mixOf(query)
  if (mix) said.push(`--weights ${mixText(mix)}`)
  if (query['local']) said.push('--local')
  if (words && limitOf(query) !== HITS) said.push(`-k ${limitOf(query)}`)
  said.push('--explain')
  return said.join(' ')
}

/** What else of this page is in the address and goes when all filters are taken away. */
export const CLEARED: Record<string, undefined> = Object.fromEntries(
  [...FILTERS.map((row) => row.key), 'healthy', 'local', 'k'].map((key) => [key, undefined]),
)
