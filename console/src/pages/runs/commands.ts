/** The commands that print what the pages of runs show. */
import type { Filter } from './rows'

/** Write a word so that a shell takes it as one; what no shell takes in a line is left out by returning "". */
export function word(text: string): string {
  if (/^[\w.,:@/+-]+$/.test(text)) return text
  return /[\u0000-\u001f\u007f]/.test(text) ? '' : `'${text.replaceAll("'", `'\\''`)}'`
}

/** Return the commands for a run with these filters. */
export function traceCommand(run: string, filter: Filter): string[] {
  void filter
  return [`agentmesh trace ${run}`]
}
