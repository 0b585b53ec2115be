import { describe, expect, test } from 'vitest'
import { COMMANDS, find, type Thing } from './search'

const thing = (kind: Thing['kind'], label: string, ...words: string[]): Thing => ({ kind, key: kind + label, label, more: '', to: '#/', words })
const labels = (asked: string, things: Thing[]) => find(asked, things).found.map((one) => one.label)

describe('the search', () => {
  test('puts what begins so before what holds it', () => {
    const things = ['scalc', 'deep-calc', 'calc', 'echo'].map((name) => thing('agent', name))
    expect(labels('calc', things)).toEqual(['calc', 'deep-calc', 'scalc'])
    expect(labels('CALC ', things)).toEqual(['calc', 'deep-calc', 'scalc'])
  })
  test('finds an agent by its id or machine, and a run by the beginning of its id alone', () => {
    const things = [thing('agent', 'calc', 'did:key:z6MkA', 'node-b'), thing('run', '1f3a9c00', 'reviewer')]
    expect(labels('node-b', things)).toEqual(['calc'])
    expect(labels('1f3', things)).toEqual(['1f3a9c00'])
    expect(labels('9c', things)).toEqual([])
    expect(labels('rev', things)).toEqual(['1f3a9c00'])
  })
  test('offers pages and agents before anything is typed', () => {
    expect(labels('', [thing('page', 'Home'), thing('agent', 'calc'), thing('run', '1f3a'), thing('command', 'agentmesh status')])).toEqual(['Home', 'calc'])
  })
  test('says how many it leaves out', () => {
    const many = Array.from({ length: 30 }, (_, n) => thing('agent', `agent-${n}`))
    const { found, more } = find('agent', [...many, thing('page', 'Agents')])
    expect([found.length, more]).toEqual([9, 22])
  })
  test('knows commands by any of their words', () => {
    const things = COMMANDS.map((one) => thing('command', one))
    expect(labels('kill', things)).toEqual(['agentmesh killswitch status', 'agentmesh killswitch on'])
    expect(labels('agentmesh t', things)).toContain('agentmesh trace last')
  })
})
