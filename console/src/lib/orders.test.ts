import { describe, expect, it } from 'vitest'
import { countOf } from './orders.svelte'

const node = (node_name: string, stops: string[] = [], answered = true) => ({
  node_id: `did:key:z6Mk${node_name}`, node_name, site: '', capacity: 0, zone: '', answered, neighbours: [], stops,
})

describe('countOf', () => {
  const map = [node('a', ['x']), node('b', ['x', 'y']), node('c', ['y']), node('d'), node('e', [], false)]

  it('counts who confirms a stop, and names who does not and who is silent', () => {
    expect(countOf(map, 'x')).toEqual({ asked: 5, confirmed: 2, others: ['c', 'd'], silent: ['e'] })
  })
  it('counts who goes on when nothing must be stopped any more', () => {
    expect(countOf(map, '')).toEqual({ asked: 5, confirmed: 1, others: ['a', 'b', 'c'], silent: ['e'] })
  })
  it('calls a node without a name by its id', () => {
    expect(countOf([{ ...node(''), node_id: 'did:key:z6MkX' }], 'x').others).toEqual(['did:key:z6MkX'])
    expect(countOf([], 'x')).toEqual({ asked: 0, confirmed: 0, others: [], silent: [] })
  })
})
