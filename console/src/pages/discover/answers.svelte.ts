/** The answers to what the address asks, as they come in: the local one first, then those with what other nodes say. */
import { untrack } from 'svelte'
import { ApiError, client, got, type Schemas } from '../../lib/api'
import { live, onTick } from '../../lib/live.svelte'
import { route } from '../../lib/route.svelte'
import { frames } from '../../lib/stream'
import { lists, requestOf } from './asked'

export interface Answers {
  /** Hits of a query; undefined while the page lists the directory, or before the first answer. */
  readonly view: Schemas['DiscoverView'] | undefined
  /** The directory, by name; undefined while something is asked. */
  readonly listed: Schemas['AgentView'][] | undefined
  readonly error: ApiError | undefined
  /** Nothing of an answer to this question is there yet. */
  readonly loading: boolean
  /** More may come. */
  readonly open: boolean
  /** Agents changed since the answer was made. A list is made again by itself; a query tells other nodes, so a person asks again. */
  readonly stale: boolean
  again(): void
}

const REST_MS = 1_000

/** Ask what the address asks while the calling component lives. */
export function answers(): Answers {
  let view = $state.raw<Schemas['DiscoverView']>()
  let listed = $state.raw<Schemas['AgentView'][]>()
  let error = $state.raw<ApiError>()
  let loading = $state(true)
  let open = $state(false)
  let stale = $state(false)
  let round = $state(0)
  let timer: ReturnType<typeof setTimeout> | undefined
  // Only these are the question: the panel and the number of rows shown of a list are in the address too.
  const question = $derived(lists(route.query) ? `list ${route.query['healthy'] ?? ''}` : JSON.stringify(requestOf(route.query)))

  async function ask(question: string, signal: AbortSignal): Promise<void> {
    if (question.startsWith('list ')) {
      const found = await got(client.GET('/api/v1/agents', { signal }))
      const healthy = question.length > 5
      view = undefined
      listed = healthy ? found.agents.filter((one) => one.status === 'healthy') : found.agents
      loading = false
      return
    }
    for await (const frame of frames('/api/v1/discover', JSON.parse(question), signal)) {
      if (frame.event !== 'answer') continue
      view = frame.data as Schemas['DiscoverView']
      listed = undefined
      loading = false
    }
  }

  $effect(() => {
    void round
    const asked = question
    const mine = new AbortController()
    loading = open = true
    stale = false
    ask(asked, mine.signal)
      .then(() => (error = undefined))
      .catch((problem: unknown) => {
        if (mine.signal.aborted) return
        error = problem instanceof ApiError ? problem : new ApiError(0, 'console.bug', String(problem))
      })
      .finally(() => {
        if (!mine.signal.aborted) loading = open = false
      })
    return () => mine.abort()
  })
  // The first tick after the page opened says nothing that the answer does not know.
  let listening = untrack(() => live.last !== null)
  $effect(() =>
    onTick((tick) => {
      const again = tick.resync && listening
      listening = true
      if (!again && !tick.changed.includes('agents')) return
      if (view && !error) stale = true
      else if (!timer)
        timer = setTimeout(() => {
          timer = undefined
          round++
        }, REST_MS)
    }),
  )
  $effect(() => () => clearTimeout(timer))

  return {
    get view() {
      return view
    },
    get listed() {
      return listed
    },
    get error() {
      return error
    },
    get loading() {
      return loading
    },
    get open() {
      return open
    },
    get stale() {
      return stale
    },
    again: () => void round++,
  }
}
