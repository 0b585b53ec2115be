/** One call as the panel makes and shows it: the request, its command, and the answer as it arrives. Pure. */
import type { Schemas } from '../../lib/api'
import { option, quoted } from '../../lib/command'

/** What a person set in the form. */
export interface Wish {
  /** Name, or id where the name stands for several. */
  readonly to: string
  readonly skill: string
  /** The input: a text, or data. */
  readonly input: { readonly text: string } | { readonly data: unknown }
  readonly purpose: string
  readonly usd: string
  readonly tokens: string
  readonly calls: string
  readonly timeoutS: string
  /** Conversation to go on with; "" for a new one. */
  readonly context: string
}

export type Bound = 'usd' | 'tokens' | 'calls' | 'timeoutS'
const FORMS: Record<Bound, RegExp> = {
  usd: /^[0-9]{1,9}(\.[0-9]{1,6})?$/,
  tokens: /^[0-9]{1,15}$/,
  calls: /^[0-9]{1,15}$/,
  timeoutS: /^[0-9]{1,5}(\.[0-9]{1,2})?$/,
}
export const PURPOSE_MAX = 512

/** Return the bounds that cannot be read. */
export function wrongBounds(wish: Pick<Wish, Bound>): Bound[] {
  return (Object.keys(FORMS) as Bound[]).filter((key) => {
    const text = wish[key].trim()
    if (!text) return false
    return !FORMS[key].test(text) || (key === 'timeoutS' && !(Number(text) >= 0.05 && Number(text) <= 86_400))
  })
}

/** The body of `POST /api/v1/calls`; its bounds can be read. */
export function bodyOf(wish: Wish): Record<string, unknown> {
  const budget: Record<string, number> = {}
  if (wish.usd.trim()) budget['usd_micros'] = Math.round(Number(wish.usd) * 1e6)
  if (wish.tokens.trim()) budget['tokens'] = Number(wish.tokens)
  if (wish.calls.trim()) budget['calls'] = Number(wish.calls)
  return {
    to: wish.to,
    ...wish.input,
    stream: true,
    ...(wish.skill && { skill: wish.skill }),
    ...(wish.purpose.trim() && { purpose: wish.purpose.trim() }),
    ...(wish.timeoutS.trim() && { timeout_s: Number(wish.timeoutS) }),
    ...(wish.context && { context_id: wish.context }),
    ...(Object.keys(budget).length > 0 && { budget }),
  }
}

/** The command that makes the same call. */
export function commandOf(wish: Wish): string {
  const said = ['agentmesh run', option('to', wish.to)]
  if (wish.skill) said.push(option('skill', wish.skill))
  if (wish.context) said.push(option('context', wish.context))
  if (wish.purpose.trim()) said.push(option('purpose', wish.purpose.trim()))
  const budget = [
    wish.usd.trim() && `usd=${wish.usd.trim()}`,
    wish.tokens.trim() && `tokens=${wish.tokens.trim()}`,
    wish.calls.trim() && `calls=${wish.calls.trim()}`,
  ].filter(Boolean)
  if (budget.length) said.push(`--budget ${budget.join(',')}`)
  if (wish.timeoutS.trim()) said.push(`--timeout ${wish.timeoutS.trim()}`)
  if ('data' in wish.input) return [...said, option('data', JSON.stringify(wish.input.data))].join(' ')
  const text = wish.input.text
  // A lone "-" means stdin there.
  if (text === '-') return `echo - | ${said.join(' ')} -`
  return [...said, ...(text.startsWith('-') ? ['--'] : []), quoted(text)].join(' ')
}

/** The answer so far. */
export interface Answer {
  readonly runId: string
  readonly taskId: string
  readonly state: string
  /** What the agent says that it is doing. */
  readonly doing: string
  readonly text: string
  readonly data: readonly unknown[]
  /** Names of the newest tools that it used. */
  readonly tools: readonly string[]
  readonly toolCount: number
  /** A replica was lost and another one began again. */
  readonly again: boolean
  readonly open: boolean
}

export const NOTHING: Answer = { runId: '', taskId: '', state: 'submitted', doing: '', text: '', data: [], tools: [], toolCount: 0, again: false, open: false }
const TOOLS_SHOWN = 8
const DATA_MAX = 200

/** Take one event of the stream in (an EventV1 from anywhere, so of any shape). */
export function heard(answer: Answer, event: unknown): Answer {
  const said = record(event)
  const payload = record(said['payload'])
  const now = { ...answer, runId: words(said['run_id']) || answer.runId, taskId: words(said['task_id']) || answer.taskId }
  switch (said['kind']) {
    case 'status': {
      const state = words(payload['state']) || answer.state
      const doing = words(payload['text']) || words(payload['detail'])
      const again = payload['again'] === true && state === 'working'
      return again ? { ...now, ...{ state, doing, text: '', data: [], again: true, open: false } } : { ...now, state, doing }
    }
    case 'message': {
      if (payload['role'] === 'user') return now
      const [text, data] = partsOf(payload['parts'])
      const delta = payload['delta'] === true
      const joined = !text ? answer.text : answer.text && !(delta && answer.open) ? `${answer.text}\n${text}` : answer.text + text
      return { ...now, text: joined, open: text ? delta : answer.open, data: [...answer.data, ...data].slice(-DATA_MAX) }
    }
    case 'artifact':
      return { ...now, data: [...answer.data, ...partsOf(payload['parts'])[1]].slice(-DATA_MAX) }
    case 'tool':
      return { ...now, tools: [...answer.tools, words(payload['name'])].slice(-TOOLS_SHOWN), toolCount: answer.toolCount + 1 }
    default:
      return now
  }
}

/** Take the outcome in: it holds the whole answer. */
export function ended(answer: Answer, reply: Schemas['Reply']): Answer {
  return { ...answer, runId: reply.run_id, taskId: reply.task_id, state: reply.state, doing: '', text: reply.text, data: reply.data.slice(0, DATA_MAX) }
}

function partsOf(parts: unknown): [string, unknown[]] {
  const all = Array.isArray(parts) ? parts.map(record) : []
  return [all.map((one) => words(one['text'])).join(''), all.filter((one) => 'data' in one).map((one) => one['data'])]
}

function words(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
}
