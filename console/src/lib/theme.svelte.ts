/** Light or dark: the system's choice until the user makes one. */
import { store, stored } from './i18n.svelte'

export type Theme = 'system' | 'light' | 'dark'
const KEY = 'agentmesh.theme'

const asked = typeof window === 'undefined' ? '' : (new URLSearchParams(location.search).get('theme') ?? stored(KEY))
let chosen = $state<Theme>(asked === 'light' || asked === 'dark' ? asked : 'system')

function apply(): void {
  if (typeof document === 'undefined') return
  if (chosen === 'system') delete document.documentElement.dataset.theme
  else document.documentElement.dataset.theme = chosen
}
apply()

export const theme = {
  get chosen(): Theme {
    return chosen
  },
  /** Whether dark is shown now; reactive to the choice, not to a change of the system's. */
  get dark(): boolean {
    return chosen === 'dark' || (chosen === 'system' && matchMedia('(prefers-color-scheme: dark)').matches)
  },
  use(to: Theme): void {
    chosen = to
    store(KEY, to === 'system' ? '' : to)
    apply()
  },
}
