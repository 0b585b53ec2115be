import { describe, expect, test } from 'vitest'
import { claims, json, readable } from './payload'
import { holds, keyOf } from './signed'

const DIGITS = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'

function didOf(key: Uint8Array): string {
  let value = BigInt('0x' + 'ed01' + Buffer.from(key).toString('hex'))
  let out = ''
  for (; value > 0n; value /= 58n) out = DIGITS[Number(value % 58n)] + out
  return 'did:key:z' + out
}

const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')

describe('what a person reads of a payload', () => {
  test('is its texts, and JSON where it holds something else', () => {
    expect(readable('message', { role: 'agent', parts: [{ text: 'hé' }, { data: { a: 1 } }, { url: 'x://y', filename: 'z.png' }] })).toEqual([
      { name: 'agent', text: 'hé' },
      { name: 'agent', text: '{\n  "a": 1\n}' },
      { name: 'agent', text: 'z.png' },
    ])
    expect(readable('tool', { name: 'search', args: { q: 1 }, result: null })).toEqual([
      { name: 'tool', text: 'search' },
      { name: 'args', text: '{\n  "q": 1\n}' },
    ])
    expect(readable('error', { code: 'a.b', message: 'boom' }).map((one) => one.text)).toEqual(['a.b', 'boom'])
  })
  test('holds for payloads of any shape and size', () => {
    for (const kind of ['status', 'message', 'artifact', 'tool', 'reasoning', 'error', 'unheard'])
      for (const payload of [{}, { parts: 7 }, { parts: [null, 'x', [], { text: 5 }] }, { role: {}, name: [], text: { a: 1 }, code: 9, input: 'x' }])
        for (const one of readable(kind, payload)) expect([typeof one.name, typeof one.text]).toEqual(['string', 'string'])
    expect(readable('message', { parts: Array(100_000).fill({ text: 'x' }) }).length).toBeLessThanOrEqual(200)
    expect(readable('reasoning', { text: 'x'.repeat(10_000_000) })[0]!.text.length).toBe(10_000_000)
    expect(json(undefined)).toBe('')
  })
})

describe('what was signed', () => {
  test('is read from a compact JWS, and from nothing else', () => {
    expect(claims(`${part({ alg: 'EdDSA' })}.${part({ outcome: '完成' })}.AA`)?.body).toEqual({ outcome: '完成' })
    for (const bad of ['', 'a.b', 'a.b.c', `${part({})}.${part([])}.AA`, `${part({})}.${part({})}.AA.BB`, `${part({})}.%%%.AA`]) expect(claims(bad)).toBeNull()
  })
  test('holds by the key that the id is, for these words only', async () => {
    const { publicKey, privateKey } = (await crypto.subtle.generateKey('Ed25519', true, ['sign', 'verify'])) as CryptoKeyPair
    const raw = new Uint8Array(await crypto.subtle.exportKey('raw', publicKey))
    const did = didOf(raw)
    expect(did).toMatch(/^did:key:z6Mk/)
    expect(keyOf(did)).toEqual(raw)
    const said = `${part({ alg: 'EdDSA' })}.${part({ outcome: 'completed' })}`
    const signature = Buffer.from(await crypto.subtle.sign('Ed25519', privateKey, Buffer.from(said))).toString('base64url')
    expect(await holds(`${said}.${signature}`, did)).toBe(true)
    expect(await holds(`${part({ alg: 'EdDSA' })}.${part({ outcome: 'failed' })}.${signature}`, did)).toBe(false)
    expect(await holds(`${said}.${signature}`, didOf(raw.map((byte) => byte ^ 1)))).toBe(false)
    for (const bad of ['', 'did:key:z', 'did:web:x', 'did:key:z0OIl', did + 'x', 'did:key:z' + '1'.repeat(1000)]) expect(await holds(`${said}.${signature}`, bad)).toBe(false)
    expect(await holds('x', did)).toBe(false)
  })
})
