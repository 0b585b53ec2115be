import { describe, expect, it } from 'vitest'
import { commandOf, isReady, requestOf, type Wish } from './keyform'

const wish = (part: Partial<Wish>): Wish => ({ name: 'ci', scopes: ['read'], agents: '', lifeS: 0, tenant: '', ...part })

describe('the form for a key', () => {
  it('limits calls to the agents that are named, and nothing else', () => {
    expect(requestOf(wish({ scopes: ['call', 'read'], agents: 'echo, calc,摘要' })).scopes).toEqual(['read', 'call:echo', 'call:calc', 'call:摘要'])
    expect(requestOf(wish({ scopes: ['read'], agents: 'echo' })).scopes).toEqual(['read'])
    expect(requestOf(wish({ scopes: ['call'], agents: ' , ' })).scopes).toEqual(['call'])
  })
  it('never asks for a scope that there is not', () => {
    expect(requestOf(wish({ scopes: ['root', 'admin'] })).scopes).toEqual(['admin'])
  })
  it('ends when it should, or never', () => {
    expect(requestOf(wish({ lifeS: 3_600 })).expires_s).toBe(3_600)
    expect(requestOf(wish({ lifeS: 0 })).expires_s).toBeNull()
  })
  it('writes the command that does the same', () => {
    expect(commandOf(wish({ lifeS: 2_592_000, tenant: 'acme' }))).toBe('agentmesh keys add ci --scope read --expires 30d --tenant acme')
    expect(commandOf(wish({ name: '', lifeS: 3_600 }))).toBe('agentmesh keys add NAME --scope read --expires 1h')
    expect(commandOf(wish({ name: 'a; rm -rf ~' }))).toBe('agentmesh keys add "a; rm -rf ~" --scope read')
  })
  it('waits for a name and a scope', () => {
    expect(isReady(wish({}))).toBe(true)
    expect(isReady(wish({ name: ' ' }))).toBe(false)
    expect(isReady(wish({ scopes: [] }))).toBe(false)
  })
})
