import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import type { SimRoom, SimUser } from './chat-sim.js';
import { DESKTOP, openContext, watchLayoutShift } from './chromium.js';
import { FakeChat } from './fake-chat.js';
import { type PageFiles, PageServer } from './page-server.js';

/** People of the tests; a token is the id. */
export const PEOPLE: Readonly<Record<string, SimUser>> = {
  ann: { id: 'ann', name: 'Ann', role: 'viewer' },
  bo: { id: 'bo', name: 'Bo Fields', role: 'viewer' },
  mod: { id: 'mod', name: 'Marit', role: 'moderator' },
  dj: { id: 'dj', name: 'DJ Harbour', role: 'host' },
};

/** The page with a chat behind it that speaks the protocol and does what it is told. */
export class ChatPageWorld {
  readonly server: PageServer;
  readonly chat: FakeChat;
  readonly room: SimRoom;

  private constructor(server: PageServer, chat: FakeChat) {
    this.server = server;
    this.chat = chat;
    this.room = chat.room('radio');
  }

  static async start(files: PageFiles): Promise<ChatPageWorld> {
    const server = await PageServer.start(files);
    const chat = new FakeChat({ whoIs: (token) => PEOPLE[token], pingMs: 2_000 });
    const world = new ChatPageWorld(server, chat);
    server.upgrade = (request, socket, head) => chat.upgrade(request, socket, head);
    server.answerMore = (request, response) => {
      const json = (value: object) => {
        response.writeHead(200, { 'content-type': 'application/json' });
        response.end(JSON.stringify(value));
        return true;
      };
      const url = new URL(request.url ?? '/', server.url);
      if (url.pathname === '/api/v1/assets/rec1') {
        const hls = `${server.url}/live/radio/dvr.m3u8`;
        return json({
          id: 'rec1',
          channel: 'radio',
          title: 'The night of it',
          createdAt: new Date().toISOString(),
          durationMs: 60_000,
          urls: { hls },
        });
      }
      if (url.pathname === '/api/v1/rooms/radio') return json({ offset: world.room.head });
      if (url.pathname === '/api/v1/rooms/radio/messages') {
        const before = Number(url.searchParams.get('before'));
        const items = world.room.entries.slice(Math.max(0, before - 1 - Number(url.searchParams.get('limit'))), before - 1);
        return json({ items: items.map((entry) => ({ ...entry, epoch: 1, room: world.room.id })), next: null });
      }
      if (request.method !== 'POST' || request.url !== '/api/v1/auth/refresh') return false;
      let body = '';
      request.on('data', (chunk) => {
        body += chunk;
      });
      request.on('end', () => {
        const { refreshToken } = JSON.parse(body) as { refreshToken: string };
        response.writeHead(200, { 'content-type': 'application/json' });
        response.end(JSON.stringify({ accessToken: refreshToken, expiresIn: 900, refreshToken }));
      });
      return true;
    };
    return world;
  }

  say(who: string, text: string, more: Record<string, unknown> = {}, body: Record<string, unknown> = {}): string {
    const user = PEOPLE[who] ?? { id: who, name: who, role: 'viewer' };
    return String(this.chat.say(this.room, user, text, { body: { text, ...body }, ...more }).mid);
  }

  /** `who` undefined: a guest. */
  async visit(
    browser: Browser,
    who: string | undefined,
    options: BrowserContextOptions = DESKTOP,
    path = '/c/radio',
  ): Promise<{ page: Page; errors: string[] }> {
    const context = await openContext(browser, { ...options, permissions: ['clipboard-read', 'clipboard-write'] });
    const page = await context.newPage();
    page.setDefaultTimeout(60_000);
    const errors: string[] = [];
    page.on('pageerror', (error) => errors.push(String(error)));
    await watchLayoutShift(page);
    if (who !== undefined) {
      const name = PEOPLE[who]!.name;
      await page.addInitScript(
        ([id, shown]) =>
          localStorage.setItem(
            'veza.session',
            JSON.stringify({ refreshToken: id, user: { name: shown, email: `${id}@example.org`, role: 'listener' } }),
          ),
        [who, name] as const,
      );
    }
    await page.goto(this.server.url + path);
    if (path.startsWith('/c/')) await page.locator('.chat-panel[data-link="online"]').waitFor();
    return { page, errors };
  }

  async stop(): Promise<void> {
    this.chat.stop();
    await this.server.refuse();
  }
}
