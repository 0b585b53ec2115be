/** What a person reads of an event, and of what was signed about its call. All of it comes from anyone and may have any shape. */

/** One text of an event, with the name of the field that it stands in. */
export interface Said {
  readonly name: string
  readonly text: string
}

type Bag = Readonly<Record<string, unknown>>
const TEXTS_MAX = 200

/** Return the texts of a payload as they are, in the order of the payload; what is no text, as JSON. */
export function readable(kind: string, payload: Bag): Said[] {
  const out: Said[] = []
  const add = (name: string, value: unknown) => {
    if (value === undefined || value === null || value === '' || out.length >= TEXTS_MAX) return
    out.push({ name, text: typeof value === 'string' ? value : json(value) })
  }
  const parts = (name: string, value: unknown) => {
    for (const part of Array.isArray(value) ? (value as unknown[]).slice(0, TEXTS_MAX) : [])
      if (isBag(part)) {
        if (typeof part.text === 'string') add(name, part.text)
        else if ('data' in part) add(name, part.data)
        else add(name, part.filename ?? part.url ?? part.mediaType ?? 'file')
      }
  }
  if (kind === 'status') {
    add('text', payload.text ?? payload.detail)
    parts('input', payload.input)
  } else if (kind === 'message') parts(typeof payload.role === 'string' ? payload.role : 'message', payload.parts)
  else if (kind === 'artifact') parts(typeof payload.name === 'string' ? payload.name : 'artifact', payload.parts)
  else if (kind === 'tool') {
    add('tool', payload.name)
    add('args', payload.args)
    add('result', payload.result)
  } else if (kind === 'reasoning') add('text', payload.text)
  else {
    add('code', payload.code ?? payload.type)
    add('message', payload.message)
    add('hint', payload.hint)
  }
  return out
}

/** Write JSON for people; what cannot be written says so. */
export function json(value: unknown): string {
  try {
    return JSON.stringify(value, null, 2) ?? ''
  } catch (error) {
    return String(error)
  }
}

/** Header and claims of a compact JWS as they stand, unchecked; null if it is none. */
export function claims(jws: string): { header: Bag; body: Bag } | null {
  const [header, body, signature, more] = jws.split('.')
  if (!header || !body || !signature || more !== undefined) return null
  try {
    const found = { header: JSON.parse(decode(header)) as unknown, body: JSON.parse(decode(body)) as unknown }
    return isBag(found.header) && isBag(found.body) ? { header: found.header, body: found.body } : null
  } catch {
    return null
  }
}

function decode(part: string): string {
  return new TextDecoder('utf-8', { fatal: true }).decode(bytesOf(part))
}

/** Read base64url without padding. Throws if it is not. */
export function bytesOf(part: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(part.replaceAll('-', '+').replaceAll('_', '/')), (char) => char.charCodeAt(0))
}

function isBag(value: unknown): value is Bag {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
