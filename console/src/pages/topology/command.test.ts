import { expect, test } from 'vitest'
import { commandOf, quoted } from './command'

test('the command is the one that prints the same rows', () => {
  expect(commandOf(300, '', '')).toBe('agentmesh topology')
  expect(commandOf(3600, 'mdns', 'eu/01')).toBe('agentmesh topology --window 60m --source mdns --zone eu/01')
  expect(commandOf(90, '', '')).toBe('agentmesh topology --window 90s')
})
test('a zone of a stranger cannot leave its quotes', () => {
  expect(quoted("x'; rm -rf ~ #")).toBe(`'x'\\''; rm -rf ~ #'`)
  expect(quoted('a\nb\u202E$(id)')).toBe("'ab$(id)'")
})
