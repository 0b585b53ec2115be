/**
 * The two languages. Each page has its texts beside it in `text.ts`: `texts({ en: {…}, zh: {…} })`. Both must have the same
 * keys, which the type checker sees to; a value is a string, or a function of what stands in it. Plurals and dates are Intl's.
 */

export type Lang = 'en' | 'zh'
type Value = string | ((...given: never[]) => string)
type Same<T> = { [K in keyof T]: T[K] extends (...given: infer A) => string ? (...given: A) => string : string }

const KEY = 'agentmesh.lang'

function first(): Lang {
  if (typeof window === 'undefined') return 'en'
  const asked = new URLSearchParams(location.search).get('lang') ?? stored(KEY)
  if (asked === 'en' || asked === 'zh') return asked
  return navigator.languages.some((one) => one.toLowerCase().startsWith('zh')) ? 'zh' : 'en'
}

let lang = $state<Lang>(first())

/** The language now; reactive. */
export const locale = {
  get lang(): Lang {
    return lang
  },
  /** As in `lang=` and for Intl. */
  get tag(): string {
    return lang === 'zh' ? 'zh-CN' : 'en'
  },
  use(to: Lang): void {
    lang = to
    store(KEY, to)
  },
}

/** Return the texts of the language now; read its members inside markup or effects, so that they follow a change. */
export function texts<T extends Record<string, Value>>(both: { en: T; zh: Same<T> }): T {
  return new Proxy(both.en, { get: (_, key) => (lang === 'zh' ? (both.zh as unknown as T) : both.en)[key as keyof T] })
}

/** Choose the English form for a count; Chinese has one. */
export function plural(count: number, one: string, other: string): string {
  return new Intl.PluralRules('en').select(count) === 'one' ? one : other
}

/** Read what this browser remembers; "" where it may not. */
export function stored(key: string): string {
  try {
    return localStorage.getItem(key) ?? ''
  } catch {
    return ''
  }
}

export function store(key: string, value: string): void {
  try {
    localStorage.setItem(key, value)
  } catch {
    // A browser that keeps nothing still shows everything.
  }
}
