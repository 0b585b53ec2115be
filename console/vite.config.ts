import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig, type Plugin } from 'vitest/config'

const HERE = fileURLToPath(new URL('.', import.meta.url))

/** Every file that the build is made from, by its path from here. */
function sources(under: string): string[] {
  return readdirSync(join(HERE, under)).flatMap((name) => {
    const path = `${under}/${name}`
    return statSync(join(HERE, path)).isDirectory() ? sources(path) : [path]
  })
}

/** Writes `build.json`, by which a test without Node can tell whether the build was made from these sources. */
function provenance(): Plugin {
  return {
    name: 'provenance',
    apply: 'build',
    generateBundle() {
      const files = [...sources('src'), ...sources('public'), 'index.html', 'package.json', 'package-lock.json', 'svelte.config.js', 'tsconfig.json', 'vite.config.ts']
      const total = createHash('sha256')
      for (const path of files.filter((one) => !one.endsWith('.test.ts')).sort()) {
        total.update(`${path}\n${createHash('sha256').update(readFileSync(join(HERE, path))).digest('hex')}\n`)
      }
      this.emitFile({ type: 'asset', fileName: 'build.json', source: JSON.stringify({ sources: total.digest('hex') }) + '\n' })
    },
  }
}

// The build is committed and compared in CI, so the same source must give the same files on every machine.
export default defineConfig({
  plugins: [svelte(), provenance()],
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
