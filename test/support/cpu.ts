import { readdirSync, readFileSync } from 'node:fs';
import type { Server } from './server.js';

/** Kernel clock ticks a second; 100 on every Linux that Node runs on. */
const TICKS_PER_S = 100;

interface ProcessStat {
  readonly pid: number;
  readonly parent: number;
  readonly name: string;
  readonly cpuS: number;
  readonly rssBytes: number;
}

function statOf(pid: number): ProcessStat | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const end = text.lastIndexOf(')');
    const fields = text.slice(end + 2).split(' ');
    return {
      pid,
      name: text.slice(text.indexOf('(') + 1, end),
      parent: Number(fields[1]),
      // Its own and that of children that have ended and were waited for.
      cpuS: (Number(fields[11]) + Number(fields[12]) + Number(fields[13]) + Number(fields[14])) / TICKS_PER_S,
      rssBytes: Number(fields[21]) * 4096,
    };
  } catch {
    return undefined;
  }
}

/** A process and all below it. */
export function processTree(root: number): ProcessStat[] {
  const all = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => statOf(Number(name)) ?? []);
  const tree = all.filter((stat) => stat.pid === root);
  for (const { pid } of tree) tree.push(...all.filter((stat) => stat.parent === pid));
  return tree;
}

/** CPU seconds used until now by a process and all below it. */
export const cpuSeconds = (root: number): number => processTree(root).reduce((sum, { cpuS }) => sum + cpuS, 0);

/**
 * Memory that a process and all below it hold, a page that several of them share counted once (the proportional set size of proc(5)): each is one and
 * the same program, whose code would otherwise count for each.
 */
export function residentBytes(root: number): number {
  return processTree(root).reduce((sum, { pid }) => {
    try {
      const [, kib] = /^Pss:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1')) ?? [];
      return sum + Number(kib ?? 0) * 1024;
    } catch {
      return sum;
    }
  }, 0);
}

export const ownCpuSeconds = (pid: number): number => statOf(pid)?.cpuS ?? 0;
export const rssBytes = (server: Server): number => statOf(server.pid)?.rssBytes ?? 0;
