import { describe, expect, test } from 'vitest'
import { commandOf, filtersOf, lists, mixOf, requestOf } from './asked'
import { lengthsOf, sumOf, two } from './score'

describe('what is asked', () => {
  test('is the same in the request and in the command', () => {
    const query = { q: 'check a "lease"', trust: 'medium', tag: 'law', window: '8000', price: '0.05', healthy: '1', w: '0.4,0.5,0.1', local: '1', k: '20' }
    expect(requestOf(query)).toEqual({
      query: 'check a "lease"',
      filters: { trust_tier: 'medium', tag: 'law', context_window_min: 8000, price_max: '0.05', health: 'healthy' },
      weights: { text: 0.4, trust: 0.5, health: 0.1 },
      limit: 20,
      near: 3,
      scope: 'local',
      time_ms: 800,
    })
    expect(commandOf(query)).toBe(
      `agentmesh discover 'check a "lease"' --trust medium --tag law --context-window 8000 --price 0.05 --healthy --weights 0.4,0.5,0.1 --local -k 20 --explain`,
    )
  })
  test('without words and filters is the list of the directory', () => {
    expect(lists({})).toBe(true)
    expect(lists({ healthy: '1', agent: 'did:key:z' })).toBe(true)
    expect(commandOf({ healthy: '1' })).toBe('agentmesh discover --healthy')
    expect(lists({ tag: 'x' })).toBe(false)
    expect(requestOf({ tag: 'x' }).limit).toBe(1000)
  })
  test('leaves out what makes no sense in an address that anybody may have written', () => {
    const bad = { trust: 'best', protocol: 'gopher', window: '-5', price: '1e9', budget: 'free', tag: 'x'.repeat(201), w: '1,2', k: '0' }
    expect(filtersOf(bad)).toEqual([])
    expect(requestOf(bad)).toMatchObject({ filters: {}, weights: null })
    for (const w of ['0,0,0', '1,1', '-1,1,1', 'a,b,c', '0.5,0.5,7', '..,1,1', '']) expect(mixOf({ w })).toBe(null)
  })
  test('cannot smuggle an option into the command', () => {
    expect(commandOf({ q: '--local' })).toBe('agentmesh discover --query=--local --explain')
    expect(commandOf({ q: '-k 5', tag: '-v' })).toBe('agentmesh discover "--query=-k 5" --tag=-v --explain')
  })
})

describe('a score', () => {
  const score = { total: 0.9537, text: 0.9338, trust: 1, health: 1, lexical: 0.5, vector: 0.8 }
  test('reads as on the command line', () => {
    expect(sumOf(score, { text: 0.7, trust: 0.2, health: 0.1 })).toBe('0.95 = 0.70·0.93 + 0.20·1.00 + 0.10·1.00')
  })
  test('is rounded as Python does, halves to even', () => {
    expect(['0.125', '0.375', '0.625', '0.875', '0.005', '0.345', '1', '0'].map((one) => two(Number(one)))).toEqual(['0.12', '0.38', '0.62', '0.88', '0.01', '0.34', '1.00', '0.00'])
  })
  test('gives a bar that never leaves its place', () => {
    expect(lengthsOf(score, { text: 0.7, trust: 0.2, health: 0.1 }).map((one) => Math.round(one.share * 100))).toEqual([65, 20, 10])
    const mad = lengthsOf({ total: 9, text: 9, trust: NaN, health: -4, lexical: 0, vector: 0 }, { text: 1, trust: 1, health: 1 })
    expect(mad.map((one) => one.share)).toEqual([1, 0, 0])
  })
})
