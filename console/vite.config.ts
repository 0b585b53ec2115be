import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'vitest/config'

// The build is committed and compared in CI, so the same source must give the same files on every machine.
export default defineConfig({
  plugins: [svelte()],
  base: '/',
  build: {
    outDir: '../src/agentmesh/api/static',
    emptyOutDir: true,
    target: 'es2022',
    sourcemap: false,
    // A file put into a data: address would be refused by the page's own policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    chunkSizeWarningLimit: 300,
  },
  worker: { format: 'es' },
  server: { proxy: { '/api': 'http://127.0.0.1:6374' } },
  test: { include: ['src/**/*.test.ts'], environment: 'node' },
})
