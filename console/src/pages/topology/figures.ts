/** Figures of the topology as people read them. */

/** Milliseconds: "0.4 ms", "12 ms", "3.4 s"; as the CLI says them. */
export function latency(ms: number | null | undefined): string {
  if (ms === null || ms === undefined) return '–'
  if (ms >= 10_000) return `${(ms / 1000).toFixed(1)} s`
  return ms >= 100 ? `${ms.toFixed(0)} ms` : `${ms.toFixed(1)} ms`
}

/** A duration in seconds, in the unit in which the CLI says it: 42 s, 5 min, 1 h. */
export function age(seconds: number): { count: number; unit: 's' | 'min' | 'h' } {
  if (seconds >= 3_600) return { count: Math.round(seconds / 3_600), unit: 'h' }
  return seconds >= 60 ? { count: Math.round(seconds / 60), unit: 'min' } : { count: Math.round(seconds), unit: 's' }
}
