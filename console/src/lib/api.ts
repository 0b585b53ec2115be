/**
 * The daemon's HTTP API, typed from its own description (`schema.d.ts`, made by `tools/console_types.py`). The page is served by the
 * daemon, so the session's cookie goes along and nothing else is ever asked. Browsers hand the cookie to other ports of this host as
 * well, so each request also carries what the login left in the storage of this origin, which they cannot read.
 */
import createClient from 'openapi-fetch'
import { stored } from './i18n.svelte'
import type { components, paths } from './schema'

export type Schemas = components['schemas']

/** A refusal or failure, in the words of the daemon (RFC 9457). */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    readonly detail: string,
    readonly why = '',
    readonly hint = '',
  ) {
    super(detail)
  }
}

/** Told of every request that got no answer or was refused for want of a session. */
export type Watcher = (what: 'unreached' | 'unauthorised' | 'reached') => void
let watcher: Watcher = () => {}
/** Say what became of a request that did not go through `client`. */
export function tell(what: Parameters<Watcher>[0]): void {
  watcher(what)
}
export function watchRequests(by: Watcher): void {
  watcher = by
}

const TIMEOUT_MS = 30_000
const PAGE_KEY = 'agentmesh.page'

async function ask(request: Request): Promise<Response> {
  const clock = AbortSignal.timeout(TIMEOUT_MS)
  try {
    return await send(new Request(request, { signal: AbortSignal.any([request.signal, clock]) }))
  } catch (error) {
    if (request.signal.aborted) throw error
    tell('unreached')
    throw new ApiError(0, clock.aborted ? 'console.timeout' : 'console.unreached', '')
  }
}

/** Send a request as every request of the console is sent. Throws what `fetch` throws. */
export async function send(request: Request): Promise<Response> {
  // Read each time: another tab may have logged in anew.
  request.headers.set('X-AgentMesh-Page', stored(PAGE_KEY))
  const answer = await fetch(request)
  tell(answer.status === 401 ? 'unauthorised' : 'reached')
  return answer
}

/** The client: `client.GET('/api/v1/runs', { params: … })`. Prefer `got`, which throws what is wrong. */
export const client = createClient<paths>({ baseUrl: '/', fetch: ask, credentials: 'same-origin' })

interface Answer<T> {
  data?: T
  error?: unknown
  response: Response
}

/**
 * Wait for an answer and return its body.
 *
 * @throws ApiError with what the daemon said, or with status 0 if it could not be asked.
 */
export async function got<T>(answer: Promise<Answer<T>>): Promise<T> {
  const { data, error, response } = await answer
  if (response.ok && data !== undefined) return data
  throw problemOf(error, response.status)
}

/** Read what the daemon said of a refusal or failure. */
export function problemOf(body: unknown, status: number): ApiError {
  const said = (typeof body === 'object' && body !== null ? body : {}) as Record<string, unknown>
  const text = (key: string) => (typeof said[key] === 'string' ? said[key] : '')
  return new ApiError(status, text('code') || `http.${status}`, text('detail'), text('why'), text('hint'))
}

/**
 * Fetch a file and hand it to the browser to keep. It may be large and take long, so it has no time limit.
 *
 * @throws ApiError if it was refused, or broke off: then nothing is kept.
 */
export async function download(path: string, name: string): Promise<void> {
  let answer: Response
  let body: Blob
  try {
    answer = await fetch(path, { headers: { 'X-AgentMesh-Page': stored(PAGE_KEY) }, credentials: 'same-origin' })
    watcher(answer.status === 401 ? 'unauthorised' : 'reached')
    body = await answer.blob()
  } catch {
    watcher('unreached')
    throw new ApiError(0, 'console.unreached', '')
  }
  if (!answer.ok) {
    const text = await body.text()
    let said: unknown
    try {
      said = JSON.parse(text)
    } catch {
      said = {}
    }
    throw problemOf(said, answer.status)
  }
  const url = URL.createObjectURL(body)
  const link = document.createElement('a')
  link.href = url
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(url), 60_000)
}
