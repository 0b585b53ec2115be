/** Command lines that people paste into a shell (sh, bash, zsh, PowerShell's bash): every word arrives as it is here. Pure. */

const PLAIN = /^[A-Za-z0-9_./:=,@%+~-]+$/
const DOUBLE_QUOTABLE = /^[^"$`\\!\u0000-\u001f\u007f-\u009f]*$/
// What a terminal would act on or nobody would see: controls, invisible and direction marks, lone halves of a character.
const UNSEEN =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g

/** Quote one word: bare if it can be, else "…", else '…'; with characters that nobody sees as bash's and zsh's $'…'. */
export function quoted(word: string): string {
  UNSEEN.lastIndex = 0
  if (UNSEEN.test(word)) {
    const shown = word.replace(/[\\']/g, '\\$&').replace(UNSEEN, (one) => '\\u' + one.charCodeAt(0).toString(16).padStart(4, '0'))
    return `$'${shown.replaceAll('\\u000a', '\\n').replaceAll('\\u0009', '\\t')}'`
  }
  if (PLAIN.test(word) && !word.startsWith('~')) return word
  return DOUBLE_QUOTABLE.test(word) ? `"${word}"` : `'${word.replaceAll("'", `'\\''`)}'`
}

/** Write an option with its value; `--name=value` where the value could be taken for an option. */
export function option(name: string, value: string): string {
  return value.startsWith('-') ? quoted(`--${name}=${value}`) : `--${name} ${quoted(value)}`
}

/** Tell commands the home directory of the node; "" where it is found without. What is not ours, or names one, stays as it is. */
export function withHome(commands: string, home: string): string {
  if (!home || commands.includes(' --home')) return commands
  const named = (one: string) => (/^agentmesh (?!demo\b)/.test(one) ? `agentmesh ${option('home', home)}${one.slice(9)}` : one)
  return commands.split(' && ').map(named).join(' && ')
}
