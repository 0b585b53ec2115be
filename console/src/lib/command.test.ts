import { execFileSync } from 'node:child_process'
import { describe, expect, test } from 'vitest'
import { option, quoted, withHome } from './command'

/** What a real shell makes of it. */
const heard = (line: string): string => execFileSync('bash', ['--norc', '--noprofile', '-c', `printf '%s\\0' ${line}`], { encoding: 'utf-8', env: { LC_ALL: 'C.UTF-8' }, stdio: ['pipe', 'pipe', 'ignore'] })

describe('a word in a command', () => {
  test('is bare, in double or in single quotes, whichever is plainest', () => {
    expect(quoted('calc@node-b')).toBe('calc@node-b')
    expect(quoted('check a German rental contract')).toBe('"check a German rental contract"')
    expect(quoted('it costs $5')).toBe("'it costs $5'")
    expect(quoted('')).toBe('""')
  })
  test('arrives in a shell as it was, whatever it is', () => {
    const words = ['', "it's", '$(rm -rf /)', '`id`', '"; reboot; "', 'a\\b', '!!', '~', '~root', '*', '$HOME', "'", '合同 审查', 'a\nb', '\t', 'x\u202ey', "q'\u200b\\", '1+1', '-x', '#no', '{a,b}', 'a=b', '|', '\x1b[31m', '\\n']
    for (const word of words) expect(heard(quoted(word))).toBe(word + '\0')
  })
  test('never shows what a terminal would act on or nobody sees', () => {
    expect(quoted('a\x1b[2J\u202eb')).toBe("$'a\\u001b[2J\\u202eb'")
    expect(quoted('half \ud83d')).toBe("$'half \\ud83d'")
  })
})

describe('an option', () => {
  test('cannot be made another option by its value', () => {
    expect(option('tag', 'travel')).toBe('--tag travel')
    expect(option('tag', '--local')).toBe('--tag=--local')
    expect(heard(option('tag', '-x $y'))).toBe('--tag=-x $y\0')
  })
})

describe('the home directory', () => {
  test('is named where a node is not found without it, once, and for our program only', () => {
    expect(withHome('agentmesh trace 57ce', '')).toBe('agentmesh trace 57ce')
    expect(withHome('agentmesh trace 57ce', '/tmp/a b')).toBe('agentmesh --home "/tmp/a b" trace 57ce')
    expect(withHome('agentmesh status --home /x', '/y')).toBe('agentmesh status --home /x')
    expect(withHome('agentmesh down && agentmesh up', '/y')).toBe('agentmesh --home /y down && agentmesh --home /y up')
    expect(withHome('sudo reboot', '/y')).toBe('sudo reboot')
    expect(withHome('agentmesh demo --keep', '/y')).toBe('agentmesh demo --keep')
  })
})
