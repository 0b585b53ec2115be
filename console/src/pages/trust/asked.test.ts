import { describe, expect, it } from 'vitest'
import { asked, commands, params } from './asked'

const NOW = Date.UTC(2026, 10, 21, 20, 31, 59)

describe('asked', () => {
  it('takes everything from the address and nothing else', () => {
    const one = asked({ caller: 'did:key:z6MkA', result: 'refused', before: '17', odd: 'x' }, NOW)
    expect(one).toEqual({ caller: 'did:key:z6MkA', callee: '', result: 'refused', run: '', since: '', until: '', before: 17 })
    expect(params(one)).toEqual({ action: 'call', caller: 'did:key:z6MkA', result: 'refused' })
  })
  it('begins a window at a whole minute, so that a copied command looks at the same records', () => {
    expect(asked({ window: '1h' }, NOW).since).toBe('2026-11-21T19:31')
    expect(asked({ window: '1h' }, NOW + 500).since).toBe('2026-11-21T19:31')
    expect(asked({ window: '7d' }, NOW).since).toBe('2026-11-14T20:31')
    expect(asked({ window: 'constructor' }, NOW).since).toBe('')
    expect(asked({ window: '1h', since: '2026-01-01' }, NOW).since).toBe('2026-01-01')
  })
  it('does not believe numbers and lengths of an address', () => {
    for (const before of ['-1', '1.5', 'x', '', '1e400', '0']) expect(asked({ before }, NOW).before).toBe(0)
    expect(asked({ callee: 'x'.repeat(500) }, NOW).callee).toHaveLength(128)
  })
})

describe('commands', () => {
  it('quotes whatever stands in the address', () => {
    const [show, exported] = commands(asked({ callee: "a'; rm -rf ~", before: '9' }, NOW))
    expect(show).toBe(`agentmesh audit show --action call --callee "a'; rm -rf ~" --before 9 -n 100`)
    expect(exported).toBe(`agentmesh audit export --action call --callee "a'; rm -rf ~" > audit.ndjson`)
    expect(commands(asked({ callee: '--json' }, NOW))[0]).toContain('--callee=--json')
  })
})
