/** The pages: their place in the address, their icon in the rail, and where their code is (loaded when first opened). */
import Activity from '@lucide/svelte/icons/activity'
import House from '@lucide/svelte/icons/house'
import Network from '@lucide/svelte/icons/waypoints'
import Search from '@lucide/svelte/icons/search'
import Settings from '@lucide/svelte/icons/settings-2'
import Shield from '@lucide/svelte/icons/shield-check'
import type { Component } from 'svelte'
import { shell } from './lib/shell.text'

export interface PageEntry {
  readonly page: string
  readonly label: () => string
  readonly icon: Component<{ size?: number; 'aria-hidden'?: 'true' }>
  readonly load: () => Promise<{ default: Component }>
}

export const PAGES: readonly PageEntry[] = [
  { page: '', label: () => shell.home, icon: House, load: () => import('./pages/home/Home.svelte') },
  { page: 'topology', label: () => shell.topology, icon: Network, load: () => import('./pages/topology/Topology.svelte') },
  { page: 'runs', label: () => shell.runs, icon: Activity, load: () => import('./pages/runs/Runs.svelte') },
  { page: 'discover', label: () => shell.discover, icon: Search, load: () => import('./pages/discover/Discover.svelte') },
  { page: 'trust', label: () => shell.trust, icon: Shield, load: () => import('./pages/trust/Trust.svelte') },
  { page: 'peers', label: () => shell.peers, icon: Settings, load: () => import('./pages/peers/Peers.svelte') },
]
