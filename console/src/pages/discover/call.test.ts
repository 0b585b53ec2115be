import { execFileSync } from 'node:child_process'
import { describe, expect, test } from 'vitest'
import type { Schemas } from '../../lib/api'
import { bodyOf, commandOf, ended, heard, NOTHING, wrongBounds, type Wish } from './call'

const WISH: Wish = { to: 'calc', skill: '', input: { text: '1+1' }, purpose: '', usd: '', tokens: '', calls: '', timeoutS: '', context: '' }

describe('a call', () => {
  test('is the same as a request and as a command', () => {
    const wish = { ...WISH, skill: 'say', input: { data: { a: "it's" } }, purpose: 'to try', usd: '0.05', tokens: '2000', calls: '3', timeoutS: '30', context: 'c1' }
    expect(bodyOf(wish)).toEqual({
      to: 'calc',
      data: { a: "it's" },
      stream: true,
      skill: 'say',
      purpose: 'to try',
      timeout_s: 30,
      context_id: 'c1',
      budget: { usd_micros: 50_000, tokens: 2000, calls: 3 },
    })
    expect(commandOf(wish)).toBe(
      `agentmesh run --to calc --skill say --context c1 --purpose "to try" --budget usd=0.05,tokens=2000,calls=3 --timeout 30 --data '{"a":"it'\\''s"}'`,
    )
    expect(bodyOf(WISH)).toEqual({ to: 'calc', text: '1+1', stream: true })
    expect(commandOf(WISH)).toBe('agentmesh run --to calc 1+1')
  })
  test('says a text that looks like an option, or like stdin, as text', () => {
    expect(commandOf({ ...WISH, input: { text: '--help' } })).toBe('agentmesh run --to calc -- --help')
    const line = commandOf({ ...WISH, input: { text: '-' } })
    expect(execFileSync('bash', ['--norc', '-c', `agentmesh() { cat; }; ${line}`], { encoding: 'utf-8' })).toBe('-\n')
  })
  test('knows bounds that the daemon would refuse', () => {
    expect(wrongBounds(WISH)).toEqual([])
    expect(wrongBounds({ usd: '1,5', tokens: '-1', calls: '1.5', timeoutS: '0.01' })).toEqual(['usd', 'tokens', 'calls', 'timeoutS'])
    expect(wrongBounds({ usd: '0.0000001', tokens: '1e3', calls: '9'.repeat(16), timeoutS: '86401' })).toEqual(['usd', 'tokens', 'calls', 'timeoutS'])
  })
})

const event = (kind: string, payload: unknown) => ({ kind, payload, run_id: 'r1', task_id: 't1' })
const fold = (...events: unknown[]) => events.reduce<typeof NOTHING>(heard, NOTHING)

describe('an answer', () => {
  test('grows with what is said, and keeps whole messages apart', () => {
    const answer = fold(
      event('status', { state: 'submitted' }),
      event('message', { role: 'user', parts: [{ text: 'question' }] }),
      event('status', { state: 'working', text: 'thinking' }),
      event('message', { role: 'agent', parts: [{ text: 'One ' }], delta: true }),
      event('message', { parts: [{ text: 'two' }], delta: true }),
      event('tool', { name: 'look' }),
      event('message', { parts: [{ text: 'Three' }, { data: { n: 3 } }] }),
      event('artifact', { parts: [{ data: 4 }] }),
    )
    expect(answer).toMatchObject({ runId: 'r1', taskId: 't1', state: 'working', doing: 'thinking', text: 'One two\nThree', data: [{ n: 3 }, 4], tools: ['look'], toolCount: 1 })
  })
  test('begins again where another replica takes over', () => {
    const answer = fold(event('message', { parts: [{ text: 'half an ans' }], delta: true }), event('status', { state: 'working', again: true }), event('message', { parts: [{ text: 'whole' }], delta: true }))
    expect(answer).toMatchObject({ text: 'whole', again: true })
  })
  test('ends as the reply says', () => {
    const reply = { run_id: 'r1', task_id: 't1', state: 'completed', text: 'all of it', data: [1] } as unknown as Schemas['Reply']
    expect(ended(fold(event('message', { parts: [{ text: 'all' }], delta: true })), reply)).toMatchObject({ text: 'all of it', data: [1], state: 'completed' })
  })
  test('bears events of any shape', () => {
    for (const bad of [null, 7, 'x', [], {}, { kind: 'status' }, event('message', null), event('message', { parts: {} }), event('message', { parts: [null, 1, { text: 2 }] }), event('status', { state: 5, text: [] }), event('tool', { name: {} })])
      expect(heard(NOTHING, bad)).toMatchObject({ text: '', state: 'submitted' })
  })
})
