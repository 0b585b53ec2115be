import { expect, test } from 'vitest'
import { commandOf } from './command'

test('the command is the one that prints the same rows', () => {
  expect(commandOf(300, '', '')).toBe('agentmesh topology')
  expect(commandOf(3600, 'mdns', 'eu/01')).toBe('agentmesh topology --window 60m --source mdns --zone eu/01')
  expect(commandOf(90, '', '')).toBe('agentmesh topology --window 90s')
})
test('a zone of a stranger cannot leave its quotes', () => {
  expect(commandOf(300, '', 'x"$(rm -rf ~) #')).toBe(`agentmesh topology --zone 'x"$(rm -rf ~) #'`)
  expect(commandOf(300, '', '-a\nb\u202E')).toBe("agentmesh topology $'--zone=-a\\nb\\u202e'")
})
