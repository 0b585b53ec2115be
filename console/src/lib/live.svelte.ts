/**
 * One EventSource for all tabs of the browser: six of them on one origin would block it (HTTP/1.1). The tab that holds the
 * Web Lock listens and tells the others over a BroadcastChannel; when it closes, the browser gives the lock to the next one.
 * A leader that a browser froze in the background keeps its lock and says nothing, so it is robbed of it after `SILENT_MS`.
 */
import { client, tell, type Schemas } from './api'

export type Tick = Schemas['Tick']
export type Topic = 'runs' | 'agents' | 'peers' | 'orders' | 'trust'

const NAME = 'agentmesh-live'
const BEAT_MS = 2_000
export const SILENT_MS = 7_000
const RETRY_MS = 500
const RETRY_MS_MAX = 10_000

interface Said {
  tick?: Tick
  /** Whether the stream is open, sent with every beat. */
  open: boolean
}

let open = $state(false)
let last = $state.raw<Tick | null>(null)
let heardMs = $state(0)
let nowMs = $state(Date.now())
const listeners: ((tick: Tick) => void)[] = []

/** How the page stands to the daemon; reactive. */
export const live = {
  /** "live"; "behind" if the tab that listens went silent; "offline" if the daemon cannot be heard. */
  get state(): 'live' | 'behind' | 'offline' {
    if (!open) return 'offline'
    return nowMs - heardMs > BEAT_MS * 2 ? 'behind' : 'live'
  },
  /** When something was heard last, browser's clock, milliseconds; 0 = never. */
  get heardMs(): number {
    return heardMs
  },
  get behindS(): number {
    return Math.max(0, Math.round((nowMs - heardMs) / 1000))
  },
  get last(): Tick | null {
    return last
  },
}

/** Call back on every tick until the returned function is called. */
export function onTick(listener: (tick: Tick) => void): () => void {
  listeners.push(listener)
  return () => {
    const at = listeners.indexOf(listener)
    if (at >= 0) listeners.splice(at, 1)
  }
}

function hear(said: Said): void {
  heardMs = nowMs = Date.now()
  // Only when it comes back: the stream asks for the cookie alone, so that while it goes on it says nothing of other requests.
  if (said.open && !open) tell('reached')
  open = said.open
  if (!said.tick) return
  if (last && said.tick.instance !== last.instance) said.tick.resync = true
  last = said.tick
  for (const listener of [...listeners]) listener(said.tick)
}

/** Begin; called once by the shell. */
export function listen(): void {
  const channel = new BroadcastChannel(NAME)
  channel.onmessage = (message: MessageEvent<Said>) => hear(message.data)
  const say = (said: Said) => {
    hear(said)
    channel.postMessage(said)
  }
  setInterval(() => (nowMs = Date.now()), 1_000)
  // Without locks (a page that is not a secure context) every tab listens for itself.
  if (!navigator.locks) lead((said) => hear(said))
  else void stand(say)
}

async function stand(say: (said: Said) => void): Promise<void> {
  let steal = false
  for (;;) {
    const asking = new AbortController()
    let stop = () => {}
    const watch = setInterval(() => {
      if (Date.now() - heardMs > SILENT_MS && heardMs > 0 && !document.hidden) asking.abort()
    }, BEAT_MS)
    try {
      await navigator.locks.request(NAME, steal ? { steal } : { signal: asking.signal }, () => {
        clearInterval(watch)
        stop = lead(say)
        return new Promise<never>(() => {})
      })
    } catch {
      // Robbed of the lock, or tired of waiting for a leader that says nothing.
    } finally {
      clearInterval(watch)
      stop()
    }
    steal = asking.signal.aborted
    if (!steal) await pause(BEAT_MS)
  }
}

/** Listen and tell, until the function that is returned is called. */
function lead(say: (said: Said) => void): () => void {
  let source: EventSource | undefined
  let timer: ReturnType<typeof setTimeout> | undefined
  let retryMs = RETRY_MS
  const connect = () => {
    source = new EventSource(`/api/v1/console/stream${last ? `?after=${last.seq}` : ''}`)
    source.addEventListener('open', () => {
      retryMs = RETRY_MS
      say({ open: true })
    })
    source.addEventListener('tick', (event) => say({ open: true, tick: JSON.parse((event as MessageEvent<string>).data) as Tick }))
    source.addEventListener('error', () => {
      say({ open: false })
      if (source?.readyState !== EventSource.CLOSED) return
      // Refused (no session, too many streams): EventSource gives up then and does not say why, so one asks for it.
      void client.GET('/api/v1/status').catch(() => {})
      timer = setTimeout(connect, retryMs)
      retryMs = Math.min(retryMs * 2, RETRY_MS_MAX)
    })
  }
  connect()
  const beat = setInterval(() => say({ open: source?.readyState === EventSource.OPEN }), BEAT_MS)
  return () => {
    clearInterval(beat)
    clearTimeout(timer)
    source?.close()
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((go) => setTimeout(go, ms))
}
