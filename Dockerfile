# The whole service in one image: docker build -t veza .

FROM node:24-bookworm-slim AS build
WORKDIR /app
# Apart from the sources, so that a change of code installs nothing again. No scripts: `prepare` would build what is not here yet.
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts
# What there is, .dockerignore says.
COPY . .
RUN npm run build

FROM node:24-bookworm-slim
WORKDIR /app
COPY package.json package-lock.json ./
# ffmpeg is among the optional packages of @ffmpeg-installer, one a platform: optional ones are not left out.
RUN npm ci --omit=dev --ignore-scripts && npm cache clean --force
COPY --from=build /app/dist ./dist
COPY LICENSE ./

RUN mkdir /data && chown node:node /data
# Metrics listen on the container's network, where Prometheus is; the port is not exposed, so that -P does not publish it.
ENV NODE_ENV=production DATA_DIR=/data METRICS_HOST=0.0.0.0
VOLUME /data
USER node

# Pages, API and playback; Icecast and POST; RTMP.
EXPOSE 8080 8000 1935
# Not `ready`: an orchestrator would kill a show that is on air because the disk is full.
HEALTHCHECK --interval=10s --timeout=4s --start-period=60s --retries=3 \
  CMD ["node", "-e", "fetch('http://127.0.0.1:'+(process.env.PORT||8080)+'/health/live').then((r)=>process.exit(r.ok?0:1),()=>process.exit(1))"]
# Not through npm, which would stand between the service and its signals.
# Small buffers by the thousand, dead at once: a young generation that begins at 16 MB saves a quarter of the process's CPU.
CMD ["node", "--min-semi-space-size=16", "dist/src/main.js"]
