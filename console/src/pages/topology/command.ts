/** The command that prints what the page shows. */

/** Quote an argument for a POSIX shell if it needs it; what no shell should see does not get in. */
export function quoted(text: string): string {
  if (/^[A-Za-z0-9_./:@=+-]+$/.test(text)) return text
  return `'${text.replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f]/g, '').replaceAll("'", `'\\''`)}'`
}

export function commandOf(windowS: number, source: string, zone: string): string {
  const parts = ['agentmesh topology']
  if (windowS !== 300) parts.push(`--window ${windowS % 60 ? `${windowS}s` : `${windowS / 60}m`}`)
  if (source) parts.push(`--source ${quoted(source)}`)
  if (zone) parts.push(`--zone ${quoted(zone)}`)
  return parts.join(' ')
}
