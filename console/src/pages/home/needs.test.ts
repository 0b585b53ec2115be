import { describe, expect, test } from 'vitest'
import type { Schemas } from '../../lib/api'
import { needsOf, type Known } from './needs'

const status = (more: Partial<Schemas['StatusView']>) => ({ warnings: [], read_only: false, cut_off: null, ...more }) as unknown as Schemas['StatusView']
const peer = (name: string, state: string) => ({ node_id: `did:key:${name}`, node_name: name, state, last_error: '' }) as Schemas['PeerView']
const key = (name: string, expires: number | null, expired = false) => ({ name, expires, expired }) as Schemas['KeyView']
const kinds = (known: Omit<Known, 'nowS'>) => needsOf({ ...known, nowS: 1_000_000 }).needs.map((one) => [one.kind, one.who || one.detail])

describe('what needs a person', () => {
  test('is nothing while all is well, and while nothing is known yet', () => {
    expect(kinds({})).toEqual([])
    expect(kinds({ status: status({}), peers: [peer('b', 'alive'), peer('c', 'unreached'), peer('d', 'left')], keys: [key('k', null)] })).toEqual([])
  })
  test('names what is wrong, gravest first, and says a stop once', () => {
    const known = {
      status: status({ read_only: true, warnings: ['stopped by anna', 'disk is full'], cut_off: { lost: 2, known: 5, since: 0, isolated: false } }),
      failing: [{ agent_id: 'did:key:x', name: 'calc', detail: 'HTTP 500' }],
      failingMore: 3,
      peers: [peer('b', 'suspect'), peer('c', 'dead')],
      keys: [key('old', 5, true), key('soon', 1_000_000 + 86_400), key('later', 1_000_000 + 30 * 86_400)],
    }
    expect(kinds(known)).toEqual([
      ['stopped', 'stopped by anna'],
      ['cut-off', ''],
      ['failing', 'calc'],
      ['more-failing', ''],
      ['suspect', 'b'],
      ['dead', 'c'],
      ['key-over', 'old'],
      ['key-ends', 'soon'],
      ['warning', 'disk is full'],
    ])
  })
  test('are machines that were not there when somebody looked last, if that is known', () => {
    const peers = [peer('b', 'alive'), peer('c', 'alive'), peer('d', 'unreached')]
    expect(kinds({ peers, seen: new Set(['did:key:b']) })).toEqual([['new', 'c']])
    expect(kinds({ peers })).toEqual([])
  })
  test('leaves nothing out silently', () => {
    const peers = Array.from({ length: 30 }, (_, n) => peer(`p${n}`, 'dead'))
    const { needs, more } = needsOf({ peers, nowS: 0 })
    expect([needs.length, more]).toEqual([5, 25])
    const failing = Array.from({ length: 100 }, (_, n) => ({ agent_id: `a${n}`, name: `a${n}` }))
    const named = needsOf({ failing, failingMore: 7, nowS: 0 })
    expect([named.needs.length, named.needs[5]?.kind, named.needs[5]?.count, named.more]).toEqual([6, 'more-failing', 102, 0])
  })
})
