/** Whether what was signed of a call holds: Ed25519 over the compact JWS, by the key that a did:key is. */
import { bytesOf } from './payload'

const DIGITS = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'
const DID = 'did:key:z'

/** Return the 32 bytes of the key that an id is; null if it is no did:key of Ed25519. */
export function keyOf(did: string): Uint8Array<ArrayBuffer> | null {
  if (!did.startsWith(DID) || did.length > 80) return null
  let value = 0n
  for (const char of did.slice(DID.length)) {
    const digit = DIGITS.indexOf(char)
    if (digit < 0) return null
    value = value * 58n + BigInt(digit)
  }
  const hex = value.toString(16).padStart(68, '0')
  // 0xed 0x01 names the kind of key; nothing stands before it.
  if (hex.length !== 68 || !hex.startsWith('ed01')) return null
  return Uint8Array.from({ length: 32 }, (_, at) => parseInt(hex.slice(4 + at * 2, 6 + at * 2), 16))
}

/** Check a signature; null if this browser cannot. */
export async function holds(jws: string, signer: string): Promise<boolean | null> {
  const key = keyOf(signer)
  const parts = jws.split('.')
  if (!key || parts.length !== 3) return false
  // Without a secure context (plain HTTP from another machine) there is no subtle.
  const subtle = (globalThis.crypto as Partial<Crypto> | undefined)?.subtle
  if (!subtle) return null
  try {
    const ready = await subtle.importKey('raw', key, 'Ed25519', false, ['verify'])
    const said = new TextEncoder().encode(`${parts[0]}.${parts[1]}`)
    return await subtle.verify('Ed25519', ready, bytesOf(parts[2]!), said)
  } catch (error) {
    return error instanceof DOMException && error.name === 'NotSupportedError' ? null : false
  }
}
