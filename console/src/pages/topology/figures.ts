/** Figures of the topology as people read them. */

/** Milliseconds: "0.4 ms", "12 ms", "3.4 s"; as the CLI says them. */
export function latency(ms: number | null | undefined): string {
  if (ms === null || ms === undefined) return '–'
  if (ms >= 10_000) return `${(ms / 1000).toFixed(1)} s`
  return ms >= 100 ? `${ms.toFixed(0)} ms` : `${ms.toFixed(1)} ms`
}

/** A duration in seconds, as the CLI says it: "42 s", "5 min", "1 h". */
export function age(seconds: number): string {
  if (seconds >= 3_600) return `${Math.round(seconds / 3_600)} h`
  return seconds >= 60 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds)} s`
}
