/**
 * Streams that answer a POST: `EventSource` can only GET. A stream is a request like others (session, refusals), without a
 * limit to its length; what may not happen is silence, for the daemon sends a comment every 15 s.
 */
import { createParser } from 'eventsource-parser'
import { ApiError, problemOf, send, tell } from './api'

const SILENT_MS = 60_000

export interface Frame {
  readonly event: string
  /** Its `data`, read as JSON. */
  readonly data: unknown
}

/**
 * Ask with a body and yield the frames of the answer as they come. Leaving the loop, or `signal`, ends the request.
 *
 * @throws ApiError if it is refused, a frame is no JSON, or the daemon cannot be heard; a frame `problem` is thrown as well.
 */
export async function* frames(path: string, body: unknown, signal: AbortSignal): AsyncGenerator<Frame> {
  const ending = new AbortController()
  const over = AbortSignal.any([signal, ending.signal])
  let silent: ReturnType<typeof setTimeout> | undefined
  const heard = () => {
    clearTimeout(silent)
    silent = setTimeout(() => ending.abort(new ApiError(0, 'console.timeout', '')), SILENT_MS)
  }
  try {
    heard()
    const headers = { 'Content-Type': 'application/json', Accept: 'text/event-stream' }
    const answer = await send(new Request(path, { method: 'POST', headers, body: JSON.stringify(body), credentials: 'same-origin', signal: over }))
    if (!answer.ok || !answer.body) throw problemOf(await answer.json().catch(() => null), answer.status)
    const ready: Frame[] = []
    const parser = createParser({ onEvent: ({ event = 'message', data }) => void ready.push({ event, data: read(data) }) })
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      heard()
      parser.feed(value)
      for (const frame of ready.splice(0)) {
        if (frame.event === 'problem') throw problemOf(frame.data, 0)
        yield frame
      }
    }
  } catch (error) {
    if (signal.aborted || error instanceof ApiError) throw error
    if (ending.signal.reason instanceof ApiError) throw ending.signal.reason
    tell('unreached')
    throw new ApiError(0, 'console.unreached', '')
  } finally {
    clearTimeout(silent)
    ending.abort()
  }
}

function read(data: string): unknown {
  try {
    return JSON.parse(data)
  } catch {
    throw new ApiError(0, 'console.stream', '')
  }
}
