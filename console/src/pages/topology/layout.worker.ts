import { layout } from './layout'
import type { Question } from './place'

self.onmessage = (message: MessageEvent<Question>) => self.postMessage(layout(message.data))
