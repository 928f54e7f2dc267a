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
  },
});
