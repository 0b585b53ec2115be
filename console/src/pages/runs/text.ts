import { texts } from '../../lib/i18n.svelte'

export const t = texts({
  en: {
    title: 'Runs',
    lead: 'Everything that one request from outside caused.',
    agent: 'Agent',
    state: 'State',
    events: 'Events',
    began: 'Began',
    took: 'Took',
    emptyTitle: 'Nothing has run yet',
    emptyWhy: 'A run begins with a call to an agent. The demo makes one with agents of its own.',
  },
  zh: {
    title: '运行',
    lead: '一次外部请求引发的全部过程。',
    agent: '智能体',
    state: '状态',
    events: '事件',
    began: '开始',
    took: '用时',
    emptyTitle: '还没有任何运行',
    emptyWhy: '调用一个智能体就会产生一次运行。演示命令会用自带的智能体产生一次。',
  },
})
