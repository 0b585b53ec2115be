/**
 * From the JSON Schema of a skill to a form, and from the form to the input of a call. Pure. The schema is the agent's own
 * word: what is not understood, too deep or too large becomes a box for JSON, and its patterns are never run.
 */

type Kind = 'text' | 'number' | 'integer' | 'boolean' | 'choice' | 'list' | 'group' | 'json'
type Json = Readonly<Record<string, unknown>>

export interface Field {
  readonly name: string
  readonly kind: Kind
  readonly description: string
  readonly required: boolean
  /** What holds where nothing is given, as text; "" if the schema does not say. */
  readonly standard: string
  readonly choices: readonly unknown[]
  readonly fields: readonly Field[]
  readonly item: Field | undefined
  /** Of a number its value, of a text its length, of a list its items; both ends belong to it. */
  readonly least: number | undefined
  readonly most: number | undefined
}

/** What stands in a field: a text; of lists and groups one for each member. */
export type Entry = string | Entry[]

/** Where (`2.0`, by position) → what is wrong there. */
export type Problems = ReadonlyMap<string, Problem>
export type Problem = 'needed' | 'number' | 'integer' | 'big' | 'range' | 'length' | 'count' | 'json'

const SCHEMA_CHARS_MAX = 20_000
const FIELDS_MAX = 64
const CHOICES_MAX = 200
export const ITEMS_MAX = 50

/** Read the schema of a skill; undefined if no form can be made of it. */
export function fieldsOf(schema: string): Field[] | undefined {
  if (schema.length > SCHEMA_CHARS_MAX) return undefined
  let read: unknown
  try {
    read = JSON.parse(schema)
  } catch {
    return undefined
  }
  const root = object(read)
  if (!root || !object(root['properties'])) return undefined
  const fields = members(root, object(root['$defs']) ?? {}, 0)
  return fields.length > 0 && fields.length <= FIELDS_MAX ? fields : undefined
}

/** Whether a text is all that is asked for: then a box for text is the form. */
export function takesText(fields: readonly Field[]): boolean {
  return fields.length === 1 && fields[0]?.kind === 'text'
}

function members(schema: Json, defs: Json, depth: number): Field[] {
  const needed = Array.isArray(schema['required']) ? schema['required'] : []
  return Object.entries(object(schema['properties']) ?? {}).map(([name, one]) => fieldOf(name, one, needed.includes(name), defs, depth))
}

function fieldOf(name: string, said: unknown, required: boolean, defs: Json, depth: number): Field {
  const schema = plain(said, defs)
  const field = (kind: Kind, more: Partial<Field> = {}): Field => ({
    name,
    kind,
    description: typeof schema['description'] === 'string' ? schema['description'] : '',
    required,
    standard: schema['default'] === undefined || schema['default'] === null ? '' : shown(schema['default']),
    choices: [],
    fields: [],
    item: undefined,
    least: undefined,
    most: undefined,
    ...more,
  })
  const choices = 'const' in schema ? [schema['const']] : schema['enum']
  if (Array.isArray(choices))
    return choices.length > 0 && choices.length <= CHOICES_MAX && choices.every(scalar) ? field('choice', { choices }) : field('json')
  switch (schema['type']) {
    case 'string':
      return field('text', { least: figure(schema['minLength']), most: figure(schema['maxLength']) })
    case 'integer':
      return field('integer', bounds(schema, 1))
    case 'number':
      return field('number', bounds(schema, 0))
    case 'boolean':
      return field('boolean')
    case 'array': {
      const item = schema['prefixItems'] || !object(schema['items']) ? undefined : fieldOf('', schema['items'], true, defs, depth + 1)
      if (!item || ['list', 'group', 'json'].includes(item.kind)) return field('json')
      return field('list', { item, least: figure(schema['minItems']), most: figure(schema['maxItems']) })
    }
    case 'object': {
      const inner = depth === 0 ? members(schema, defs, depth + 1) : []
      return inner.length > 0 && inner.length <= FIELDS_MAX ? field('group', { fields: inner }) : field('json')
    }
    default:
      return field('json')
  }
}

/** Follow references and take "or null" away; {} where more than one thing is possible. */
function plain(said: unknown, defs: Json): Json {
  let schema = object(said) ?? {}
  for (let step = 0; step < 8; step++) {
    const ref = schema['$ref']
    const either = schema['anyOf'] ?? schema['oneOf']
    if (typeof ref === 'string') {
      const name = ref.replace('#/$defs/', '')
      schema = { ...((Object.hasOwn(defs, name) && object(defs[name])) || {}), ...without(schema, '$ref') }
    } else if (Array.isArray(either)) {
      const real = either.filter((one) => object(one)?.['type'] !== 'null')
      if (real.length !== 1) return without(without(schema, 'anyOf'), 'oneOf')
      schema = { ...object(real[0]), ...without(without(schema, 'anyOf'), 'oneOf') }
    } else if (Array.isArray(schema['type'])) {
      const real = schema['type'].filter((one) => one !== 'null')
      schema = { ...schema, type: real.length === 1 ? real[0] : undefined }
    } else return schema
  }
  return {}
}

/** Return what an empty form holds. */
export function empty(field: Field): Entry {
  if (field.kind === 'list') return field.required && field.item ? [empty(field.item)] : []
  if (field.kind === 'group') return field.fields.map(empty)
  return field.kind === 'boolean' && field.required ? 'false' : ''
}

/** Make the input of a call from what stands in a form. It may be sent if there are no problems. */
export function collect(fields: readonly Field[], entries: readonly Entry[]): { value: Json; problems: Problems } {
  const problems = new Map<string, Problem>()
  return { value: gather(fields, entries, '', problems), problems }
}

function gather(fields: readonly Field[], entries: readonly Entry[], path: string, problems: Map<string, Problem>): Json {
  const pairs = fields.map((field, at) => [field.name, valueOf(field, entries[at] ?? '', `${path}${at}`, problems)] as const)
  // fromEntries makes own members of any name, "__proto__" too.
  return Object.fromEntries(pairs.filter(([, value]) => value !== undefined))
}

function valueOf(field: Field, entry: Entry, at: string, problems: Map<string, Problem>): unknown {
  const wrong = (what: Problem) => void problems.set(at, what)
  if (Array.isArray(entry)) {
    if (!field.required && blank(entry)) return undefined
    if (field.kind === 'group') return gather(field.fields, entry, `${at}.`, problems)
    if (outside(field, entry.length)) return wrong('count')
    return entry.map((one, n) => (field.item ? valueOf(field.item, one, `${at}.${n}`, problems) : undefined))
  }
  const text = entry.trim()
  if (!text && !(field.kind === 'text' && entry)) return field.required ? wrong('needed') : undefined
  switch (field.kind) {
    case 'number':
    case 'integer': {
      const value = /^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]{1,3})?$/i.test(text) ? Number(text) : NaN
      if (!Number.isFinite(value)) return wrong('number')
      if (field.kind === 'integer' && !Number.isInteger(value)) return wrong('integer')
      if (/^[+-]?[0-9]+$/.test(text) && !Number.isSafeInteger(value)) return wrong('big')
      return outside(field, value) ? wrong('range') : value
    }
    case 'boolean':
      return text === 'true'
    case 'choice':
      return field.choices[Number(text)]
    case 'json':
      return readJson(text, wrong)
    default:
      return outside(field, [...entry].length) ? wrong('length') : entry
  }
}

/** Read a whole input that was written as JSON. */
export function readJson(text: string, wrong: (what: Problem) => void): unknown {
  let big = false
  try {
    const value: unknown = JSON.parse(text, (_, one: unknown) => {
      // Beyond this a browser rounds whole numbers without a word.
      if (typeof one === 'number' && Number.isInteger(one) && !Number.isSafeInteger(one)) big = true
      return one
    })
    return big ? wrong('big') : value
  } catch {
    return wrong('json')
  }
}

/** A value as people read it in a choice or a default. */
export function shown(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value)
}

function blank(entry: Entry): boolean {
  return Array.isArray(entry) ? entry.every(blank) : entry.trim() === ''
}

function outside(field: Field, value: number): boolean {
  return value < (field.least ?? -Infinity) || value > (field.most ?? Infinity)
}

function bounds(schema: Json, step: 0 | 1): Partial<Field> {
  const above = figure(schema['exclusiveMinimum'])
  const below = figure(schema['exclusiveMaximum'])
  // Of whole numbers the next one is known; of others the agent says itself that its end does not belong to it.
  return {
    least: figure(schema['minimum']) ?? (above === undefined ? undefined : above + step),
    most: figure(schema['maximum']) ?? (below === undefined ? undefined : below - step),
  }
}

function figure(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isFinite(value) ? value : undefined
}

function scalar(value: unknown): boolean {
  return value === null || ['string', 'number', 'boolean'].includes(typeof value)
}

function object(value: unknown): Json | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : undefined
}

function without(schema: Json, key: string): Json {
  return Object.fromEntries(Object.entries(schema).filter(([name]) => name !== key))
}
