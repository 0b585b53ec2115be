import { describe, expect, test } from 'vitest'
import { collect, empty, fieldsOf, readJson, takesText, type Entry } from './schema'

/** As the SDK writes it of `book(from_: str, seats: int, to: str | None = None, …)` with a dataclass for the traveller. */
const BOOK = JSON.stringify({
  title: 'book',
  type: 'object',
  required: ['from', 'seats', 'class'],
  properties: {
    from: { type: 'string', description: 'Station of departure' },
    to: { anyOf: [{ type: 'string' }, { type: 'null' }], default: null },
    seats: { type: 'integer', minimum: 1, maximum: 9 },
    price: { type: 'number', exclusiveMinimum: 0, default: 9.5 },
    class: { enum: ['first', 2, true] },
    window: { type: 'boolean', default: false },
    via: { type: 'array', items: { type: 'string' }, maxItems: 2 },
    traveller: { $ref: '#/$defs/Person' },
    extras: { type: 'object', additionalProperties: { type: 'string' } },
  },
  $defs: { Person: { type: 'object', required: ['name'], properties: { name: { type: 'string' }, age: { type: ['integer', 'null'] } } } },
})

function filled(schema: string, values: Record<string, Entry>) {
  const fields = fieldsOf(schema) ?? []
  return collect(
    fields,
    fields.map((field) => (Object.hasOwn(values, field.name) ? (values[field.name] ?? '') : empty(field))),
  )
}

describe('a schema', () => {
  test('becomes fields of the kinds that people fill in', () => {
    const fields = fieldsOf(BOOK) ?? []
    expect(fields.map((one) => [one.name, one.kind, one.required])).toEqual([
      ['from', 'text', true],
      ['to', 'text', false],
      ['seats', 'integer', true],
      ['price', 'number', false],
      ['class', 'choice', true],
      ['window', 'boolean', false],
      ['via', 'list', false],
      ['traveller', 'group', false],
      ['extras', 'json', false],
    ])
    expect(fields[7]?.fields.map((one) => [one.name, one.kind])).toEqual([
      ['name', 'text'],
      ['age', 'integer'],
    ])
    expect(fields[3]?.standard).toBe('9.5')
  })
  test('of one text is a box for text', () => {
    expect(takesText(fieldsOf('{"type":"object","properties":{"text":{"type":"string"}}}') ?? [])).toBe(true)
    expect(takesText(fieldsOf(BOOK) ?? [])).toBe(false)
  })
  test('that is too deep, unclear or endless becomes JSON, field by field', () => {
    const odd = {
      deep: { type: 'object', properties: { in: { type: 'object', properties: { x: { type: 'string' } } } } },
      either: { anyOf: [{ type: 'string' }, { type: 'integer' }] },
      pair: { type: 'array', prefixItems: [{ type: 'string' }] },
      lists: { type: 'array', items: { type: 'array', items: { type: 'string' } } },
      loop: { $ref: '#/$defs/Loop' },
      lost: { $ref: '#/$defs/__proto__' },
      any: {},
      wild: { type: 'string', enum: [{ a: 1 }] },
      word: 7,
    }
    const fields = fieldsOf(JSON.stringify({ type: 'object', properties: odd, $defs: { Loop: { $ref: '#/$defs/Loop' } } })) ?? []
    expect(fields.map((one) => one.kind)).toEqual(['group', ...Array<string>(8).fill('json')])
    expect(fields[0]?.fields[0]?.kind).toBe('json')
  })
  test('that is none gives no form, and nothing is thrown', () => {
    const many = JSON.stringify({ type: 'object', properties: Object.fromEntries(Array.from({ length: 99 }, (_, n) => [`p${n}`, { type: 'string' }])) })
    for (const bad of ['', 'null', '[]', '"x"', '{', '{"properties":[]}', '{"type":"object"}', '{"properties":{}}', many, ' '.repeat(30_000)]) expect(fieldsOf(bad)).toBe(undefined)
  })
})

describe('a form', () => {
  test('gives the input as JSON types, and leaves out what is empty and optional', () => {
    const { value, problems } = filled(BOOK, { from: 'Roma', seats: '2', class: '1', via: ['Firenze', 'Pisa'], traveller: ['Anna', ''] })
    expect([...problems]).toEqual([])
    expect(value).toEqual({ from: 'Roma', seats: 2, class: 2, via: ['Firenze', 'Pisa'], traveller: { name: 'Anna' } })
  })
  test('says what is wrong and where', () => {
    const { problems } = filled(BOOK, { seats: '12', class: '', price: '1,5', via: ['a', 'b', 'c'], traveller: ['', '4.5'], extras: '{' })
    expect(Object.fromEntries(problems)).toEqual({ 0: 'needed', 2: 'range', 3: 'number', 4: 'needed', 6: 'count', '7.0': 'needed', '7.1': 'integer', 8: 'json' })
  })
  test('refuses whole numbers that a browser would round', () => {
    expect([...filled(BOOK, { from: 'x', class: '0', seats: '9007199254740993' }).problems]).toEqual([['2', 'big']])
    const wrong: string[] = []
    readJson('{"a": [12345678901234567890]}', (what) => wrong.push(what))
    expect(wrong).toEqual(['big'])
    expect(readJson('{"a": 9007199254740991, "b": 0.1}', (what) => wrong.push(what))).toEqual({ a: 9007199254740991, b: 0.1 })
    expect(wrong).toEqual(['big'])
  })
  test('carries names that mean something to JavaScript like any other', () => {
    const schema = '{"type":"object","properties":{"__proto__":{"type":"string"},"constructor":{"type":"integer"}}}'
    const { value } = filled(schema, Object.fromEntries([['__proto__', 'a'], ['constructor', '1']]) as Record<string, Entry>)
    expect(JSON.stringify(value)).toBe('{"__proto__":"a","constructor":1}')
  })
})
