/**
 * Where the user is. The address after `#` holds all of it (`#/runs/1f3a?kind=tool`), so that every view can be linked to,
 * reloaded and gone back to; nothing else remembers state that a page shows.
 */

export interface Place {
  /** First segment: which page; "" is Home. */
  readonly page: string
  /** The segments after it, decoded. */
  readonly path: readonly string[]
  readonly query: Readonly<Record<string, string>>
}

const SEGMENTS_MAX = 8
const PARAMS_MAX = 32

/** Read a fragment; what cannot be decoded is taken as it stands, and never throws. */
export function parse(hash: string): Place {
  const [before = '', after = ''] = splitOnce(hash.replace(/^#\/?/, ''), '?')
  const [page = '', ...path] = before.split('/').slice(0, SEGMENTS_MAX).filter(Boolean).map(decode)
  const query: Record<string, string> = {}
  for (const [name, value] of [...new URLSearchParams(after)].slice(0, PARAMS_MAX)) query[name] = value
  return { page, path, query }
}

/** Write a fragment; empty values are left out. `parse` reads the same back. */
export function href(page: string, path: readonly string[] = [], query: Record<string, string | undefined> = {}): string {
  const params = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) if (value) params.set(name, value)
  const text = params.toString()
  return '#/' + [page, ...path].filter(Boolean).map(encodeURIComponent).join('/') + (text ? '?' + text : '')
}

let place = $state.raw<Place>(parse(typeof location === 'undefined' ? '' : location.hash))

if (typeof window !== 'undefined') {
  const follow = () => (place = parse(location.hash))
  window.addEventListener('hashchange', follow)
  window.addEventListener('popstate', follow)
}

/** The place now; reactive. */
export const route = {
  get page() {
    return place.page
  },
  get path() {
    return place.path
  },
  get query() {
    return place.query
  },
}

/** Go somewhere, with a step in the history. */
export function go(page: string, path: readonly string[] = [], query: Record<string, string | undefined> = {}): void {
  location.hash = href(page, path, query)
}

/** Change parameters of this page; `undefined` or "" takes one away. Without a step in the history unless `step`. */
export function setQuery(patch: Record<string, string | undefined>, { step = false } = {}): void {
  const to = href(place.page, place.path, { ...place.query, ...patch })
  if (to === location.hash) return
  if (step) history.pushState(null, '', to)
  else history.replaceState(null, '', to)
  place = parse(to)
}

function splitOnce(text: string, at: string): [string, string] {
  const index = text.indexOf(at)
  return index < 0 ? [text, ''] : [text.slice(0, index), text.slice(index + 1)]
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
