/** The form for an API key: what is asked of the daemon, and the command that does the same. Pure. */
import { option, quoted } from '../../lib/command'

export const SCOPES = ['read', 'call', 'register', 'events', 'message', 'state', 'admin'] as const
/** Lifetimes to choose from, seconds; 0 = for ever. */
export const LIVES = [3_600, 86_400, 2_592_000, 31_536_000, 0] as const

export interface Wish {
  readonly name: string
  readonly scopes: readonly string[]
  /** Names of the only agents that may be called, with commas; "" = any. */
  readonly agents: string
  readonly lifeS: number
  readonly tenant: string
}

export interface KeyRequest {
  name: string
  scopes: string[]
  expires_s: number | null
  tenant: string
}

/** Return the request; scopes in their usual order, `call` as one word per agent if agents are named. */
export function requestOf(wish: Wish): KeyRequest {
  const agents = wish.agents.split(/[,,\s]+/).filter(Boolean)
  const scopes = SCOPES.filter((one) => wish.scopes.includes(one)).flatMap((one) =>
    one === 'call' && agents.length ? agents.map((agent) => `call:${agent}`) : [one],
  )
  return { name: wish.name.trim(), scopes, expires_s: wish.lifeS > 0 ? wish.lifeS : null, tenant: wish.tenant.trim() }
}

/** Say whether there is enough to ask for a key. The daemon judges the rest. */
export function isReady(wish: Wish): boolean {
  return wish.name.trim() !== '' && wish.scopes.length > 0
}

export function commandOf(wish: Wish): string {
  const { name, scopes, expires_s, tenant } = requestOf(wish)
  return [
    'agentmesh keys add',
    quoted(name || 'NAME'),
    ...scopes.map((scope) => option('scope', scope)),
    ...(expires_s ? [option('expires', expires_s % 86_400 ? `${Math.ceil(expires_s / 3_600)}h` : `${expires_s / 86_400}d`)] : []),
    ...(tenant ? [option('tenant', tenant)] : []),
  ].join(' ')
}
