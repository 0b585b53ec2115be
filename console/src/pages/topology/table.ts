/** The same rows as a table: columns, what they are sorted by. Pure. */

export type Value = string | number | null

export interface Column<T> {
  readonly key: string
  readonly label: () => string
  readonly number?: boolean
  /** What rows are sorted by, and what is shown unless `text` says otherwise. */
  readonly value: (row: T) => Value
  readonly text?: (row: T) => string
}

/** Return the rows in order: of a column, rising or falling; without one as they came. What has no value comes last. Stable. */
export function sorted<T>(rows: readonly T[], column: Column<T> | undefined, falling: boolean): readonly T[] {
  if (!column) return rows
  const compare = new Intl.Collator(undefined, { numeric: true, sensitivity: 'base' }).compare
  return rows
    .map((row, place) => ({ row, place, value: column.value(row) }))
    .sort((a, b) => {
      if (a.value === null || b.value === null) return a.value === b.value ? a.place - b.place : a.value === null ? 1 : -1
      const order = typeof a.value === 'number' && typeof b.value === 'number' ? a.value - b.value : compare(String(a.value), String(b.value))
      return (falling ? -order : order) || a.place - b.place
    })
    .map((one) => one.row)
}
