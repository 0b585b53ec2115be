/** Whether this node is stopped, by whom, why and since when: asked for once by the kill switch, shown by it and by the banner. */
import type { Schemas } from './api'

export type Stop = Schemas['OrderView']

let view = $state.raw<Schemas['OrdersView']>()

export const orders = {
  get view() {
    return view
  },
  /** The stops in force here, oldest first. */
  get stops(): Stop[] {
    return (view?.orders ?? []).filter((one) => view?.stops?.includes(one.jti)).sort((a, b) => a.iat - b.iat)
  },
  take(found: Schemas['OrdersView']): void {
    view = found
  },
}

export interface Count {
  readonly asked: number
  readonly confirmed: number
  /** Names of nodes that answer and do not confirm: they may obey other operators. */
  readonly others: string[]
  /** Names of nodes that do not answer. */
  readonly silent: string[]
}

/** Count who confirms a stop (`jti`), or that nothing is stopped any more (""). As the CLI counts. */
export function countOf(map: readonly Schemas['NetNodeView'][], jti: string): Count {
  const answered = map.filter((one) => one.answered !== false)
  const holds = (one: Schemas['NetNodeView']) => (jti ? (one.stops ?? []).includes(jti) : !(one.stops ?? []).length)
  const name = (one: Schemas['NetNodeView']) => one.node_name || one.node_id
  return {
    asked: map.length,
    confirmed: answered.filter(holds).length,
    others: answered.filter((one) => !holds(one)).map(name),
    silent: map.filter((one) => one.answered === false).map(name),
  }
}
