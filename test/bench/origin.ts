import type { Figure } from './report.js';
export async function measurePlaylist(_: { seconds: number; rounds: number }): Promise<Figure[]> {
  throw new Error('not yet');
}
export async function measureBlocked(_: { clients: number; parts: number }): Promise<Figure[]> {
  throw new Error('not yet');
}
