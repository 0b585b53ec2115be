import { expect, test } from 'vitest'
import { age, latency } from './figures'
import { sorted, type Column } from './table'

const rows = [{ n: 3 }, { n: null }, { n: 10 }, { n: 3, x: 1 }] as { n: number | null; x?: number }[]
const column: Column<(typeof rows)[number]> = { key: 'n', label: () => 'n', value: (row) => row.n }

test('rows are sorted both ways, what has no value comes last, equals keep their order', () => {
  expect(sorted(rows, column, false)).toEqual([{ n: 3 }, { n: 3, x: 1 }, { n: 10 }, { n: null }])
  expect(sorted(rows, column, true)).toEqual([{ n: 10 }, { n: 3 }, { n: 3, x: 1 }, { n: null }])
  expect(sorted(rows, undefined, true)).toEqual(rows)
})
test('figures are those of the CLI', () => {
  expect([0.41, 12.34, 123.4, 12_500, null].map(latency)).toEqual(['0.4 ms', '12.3 ms', '123 ms', '12.5 s', '–'])
  expect([42, 312, 3_600].map(age).map(({ count, unit }) => `${count} ${unit}`)).toEqual(['42 s', '5 min', '1 h'])
})
