/** The kinds of events: a shape and a word for each. */
import Artifact from '@lucide/svelte/icons/package'
import Brain from '@lucide/svelte/icons/brain'
import CircleAlert from '@lucide/svelte/icons/circle-alert'
import CircleDot from '@lucide/svelte/icons/circle-dot'
import Message from '@lucide/svelte/icons/message-square'
import Wrench from '@lucide/svelte/icons/wrench'
import type { Component } from 'svelte'
import { line } from '../../lib/format'
import { t } from './timeline.text'

export const ICONS: Record<string, Component<{ size?: number; id?: string }>> = {
  status: CircleDot,
  message: Message,
  artifact: Artifact,
  tool: Wrench,
  reasoning: Brain,
  error: CircleAlert,
}

/** Return the word of a kind; one of a later version as it stands. */
export function kindWord(kind: string): string {
  return Object.hasOwn(ICONS, kind) ? t[kind as 'status'] : line(kind, 20)
}
