import { describe, expect, test } from 'vitest'
import { href, parse } from './route.svelte'

describe('the address', () => {
  test('holds page, path and parameters, and gives them back', () => {
    const path = ['1f3a', 'a/b c', '合同']
    const query = { kind: 'tool', text: 'a&b=c #x' }
    expect(parse(href('runs', path, query))).toEqual({ page: 'runs', path, query })
  })
  test('leaves out what is empty', () => {
    expect(href('runs', [], { agent: '', kind: undefined })).toBe('#/runs')
    expect(href('')).toBe('#/')
    expect(parse('#/')).toEqual({ page: '', path: [], query: {} })
    expect(parse('')).toEqual({ page: '', path: [], query: {} })
  })
  test('takes what cannot be decoded as it stands', () => {
    expect(parse('#/runs/%E0%A4%A?x=%zz').path).toEqual(['%E0%A4%A'])
    expect(parse('#' + '/a'.repeat(5000)).path.length).toBeLessThan(10)
    expect(Object.keys(parse('#/x?' + 'a=1&'.repeat(3) + Array.from({ length: 99 }, (_, i) => `k${i}=1`).join('&')).query).length).toBeLessThan(40)
  })
})
