/** What a page shows of the daemon, kept fresh: asked for when its question changes, and again when a tick says so. */
import { ApiError } from './api'
import { onTick, type Tick, type Topic } from './live.svelte'

export interface Resource<T> {
  /** The last good answer; stays while a newer one is fetched or fails. */
  readonly data: T | undefined
  readonly error: ApiError | undefined
  /** True until the first answer to the present question. */
  readonly loading: boolean
  refresh(): void
}

interface When {
  /** Ask again when these changed. */
  on?: Topic[]
  /** Or decide by the tick. `resync` always asks again. */
  if?: (tick: Tick) => boolean
  /** At least so long between the end of one answer and the next question, milliseconds. */
  restMs?: number
}

/**
 * Load something while the calling component lives. Call it while a component is being set up.
 *
 * @param load - Asks the daemon. Whatever reactive state it reads before its first `await` is its question: when that changes,
 *   it is asked anew, and an answer to the old question is dropped.
 */
export function resource<T>(load: (signal: AbortSignal) => Promise<T>, when: When = {}): Resource<T> {
  let data = $state.raw<T>()
  let error = $state.raw<ApiError>()
  let loading = $state(true)
  let running: AbortController | undefined
  let resting: ReturnType<typeof setTimeout> | undefined
  let again = false

  async function run(): Promise<void> {
    const mine = (running = new AbortController())
    again = false
    try {
      const found = await load(mine.signal)
      if (mine.signal.aborted) return
      data = found
      error = undefined
    } catch (problem) {
      if (mine.signal.aborted) return
      error = problem instanceof ApiError ? problem : new ApiError(0, 'console.bug', String(problem))
    }
    loading = false
    running = undefined
    resting = setTimeout(() => {
      resting = undefined
      if (again) void run()
    }, when.restMs ?? 150)
  }

  function refresh(): void {
    if (running || resting) again = true
    else void run()
  }

  $effect(() => {
    loading = true
    void run()
    return () => {
      running?.abort()
      running = undefined
      clearTimeout(resting)
      resting = undefined
    }
  })
  $effect(() =>
    onTick((tick) => {
      if (tick.resync || when.if?.(tick) || tick.changed.some((one) => when.on?.includes(one))) refresh()
    }),
  )
  return {
    get data() {
      return data
    },
    get error() {
      return error
    },
    get loading() {
      return loading
    },
    refresh,
  }
}
