import { describe, expect, test } from 'vitest'
import { listCommand, moment, traceCommands } from './commands'
import { NO_FILTER, type Task } from './rows'

const call = (task_id: string, state: string): Task => ({
  task_id,
  state,
  agent: '',
  agent_id: '',
  caller: '',
  skill: '',
  path: '',
  depth: 0,
  parent: -1,
  events: 0,
  first_ts: 0,
  last_ts: 0,
})

describe('commands to copy', () => {
  test('name every filter, whatever characters it has', () => {
    expect(traceCommands('1f3a', { ...NO_FILTER, agent: 'a;b', since: 7 }, [])).toEqual(['agentmesh trace 1f3a --agent "a;b" --since 7'])
    expect(traceCommands('1f3a', { ...NO_FILTER, agent: '-a\n$(id)' }, [])).toEqual(["agentmesh trace 1f3a $'--agent=-a\\n$(id)'"])
  })
  test('say the filters of the page', () => {
    expect(traceCommands('1f3a', NO_FILTER, [])).toEqual(['agentmesh trace 1f3a'])
    expect(traceCommands('1f3a', { ...NO_FILTER, failed: true }, [call('t1', 'failed'), call('t2', 'completed'), call('t3', 'rejected')])).toEqual([
      'agentmesh trace 1f3a --task t1,t3',
      'agentmesh trace 1f3a --kind error',
    ])
    const many = Array.from({ length: 130 }, (_, at) => call(`t${at}`, 'failed'))
    const named = traceCommands('1f3a', { ...NO_FILTER, failed: true, kind: 'tool' }, many).flatMap((one) => one.split('--task ')[1]!.split(','))
    expect(named).toEqual(many.map((one) => one.task_id))
    expect(listCommand({ agent: '', state: 'failed', kind: '', since: '1h', until: '', before: '' }, 50)).toBe(
      'agentmesh trace --list --state failed --since 1h --limit 50',
    )
  })
  test('read times as the command line does', () => {
    expect(moment('1h', 3_600_000 + 5)).toBe(5_000)
    expect(moment('1760000000000000', 0)).toBe(1760000000000000)
    expect(['', 'soon', '1y', '-5m', '99999999999999999999'].map((text) => moment(text, 1e12))).toEqual([0, 0, 0, 0, 0])
  })
})
