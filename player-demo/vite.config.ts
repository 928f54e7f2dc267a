import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vite';

export default defineConfig({
  base: '/',
  resolve: {
    // The light build plays everything that Veza publishes; the full one adds subtitles, DRM and interstitials (+220 KB).
    alias: { 'hls.js': 'hls.js/light' },
  },
  build: {
    outDir: '../dist/player-demo',
    emptyOutDir: true,
    assetsDir: 'assets',
    target: 'es2022',
    chunkSizeWarningLimit: 600,
    // Browsers without it load the same files a moment later; with it both documents would share one more file.
    modulePreload: { polyfill: false },
    // The reference of the API is a document of its own: the player loads nothing of it.
    rolldownOptions: { input: ['index.html', 'api-docs.html'].map((file) => fileURLToPath(new URL(file, import.meta.url))) },
  },
});
