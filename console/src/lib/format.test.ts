import { describe, expect, test } from 'vitest'
import { bytes, clock, line, shortId, span } from './format'

describe('text from elsewhere', () => {
  test('stays on one line and cannot turn it around', () => {
    expect(line('a\nb\u202Ec\u0000d')).toBe('a·b·c·d')
  })
  test('is cut in the middle, by letters and not by halves of them', () => {
    expect(line('abcdefghij', 5)).toBe('ab…ij')
    expect(line('😀'.repeat(10), 5)).toBe('😀😀…😀😀')
    expect([...line('x'.repeat(10_000_000), 40)].length).toBe(40)
  })
})

describe('ids', () => {
  test('are shortened as the CLI does', () => {
    expect(shortId('did:key:z6MkabcdefghijklmnopQRSTUV')).toBe('abcd…QRSTUV')
    expect(shortId('0123456789abcdef')).toBe('01234567')
  })
})

describe('figures', () => {
  test.each([
    [-5, '0 ms'],
    [0, '0 ms'],
    [870, '870 µs'],
    [1_000, '1.0 ms'],
    [12_300, '12 ms'],
    [999_499, '999 ms'],
    [3_400_000, '3.4 s'],
    [307_000_000, '5:07'],
    [7_500_000_000, '2 h 05'],
  ])('%d µs is %s', (us, text) => expect(span(us)).toBe(text))
  test('a time that no date can hold is a dash', () => {
    expect(clock(2 ** 62)).toBe('–')
  })
  test('bytes', () => {
    expect(bytes(999)).toBe('999 B')
    expect(bytes(1_500)).toBe('1.5 kB')
  })
})
