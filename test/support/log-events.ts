import { sourceFiles } from './source-files.js';

export interface LogEvent {
  readonly event: string;
  readonly level: string;
  readonly message: string;
}

/** A call that writes a line: its level, its event, and its message when that is a constant. */
const LINE =
  /(?:\.(?<level>debug|info|warn|error)|(?<any>\[level\])|#\w+|\breport)\(\s*\{\s*event: '(?<event>[a-z_]+\.[a-z_]+)'[^;]*?\},\s*(?:(?<quote>['`])(?<message>(?:\\.|(?!\k<quote>)[^\\])*)\k<quote>)?/g;

/** Every event that the service logs, sorted; once for each text. */
export function logEvents(): LogEvent[] {
  const found = new Map<string, LogEvent>();
  for (const { text } of sourceFiles(['src', 'workers']))
    for (const { groups } of text.matchAll(LINE)) {
      const { any, level = any === undefined ? 'error' : 'any', event = '', message = '' } = groups!;
      const line = { event, level, message: message.replaceAll("\\'", "'").replaceAll(/\$\{[^}]*\}+/g, '…') };
      found.set(JSON.stringify(line), line);
    }
  return [...found.values()].sort((a, b) => (a.event === b.event ? a.message.localeCompare(b.message) : a.event < b.event ? -1 : 1));
}

/** The text of docs/log-events.md. */
export function logEventsPage(): string {
  const rows = logEvents().map(({ event, level, message }) => `| \`${event}\` | ${level} | ${message.replaceAll('|', '\\|')} |`);
  return `# Log events

Veza writes its log as JSON lines on standard output. \`event\` is the stable name of what happened: alert on it, and not on \`msg\`, whose
words may change. \`level\` is 20 (debug), 30 (info), 40 (warn) or 50 (error). \`requestId\` is the \`X-Request-Id\` of the answer.

An *error* needs somebody to look: something was lost, or a part does not work. A *warn* is a failure that Veza deals with by itself,
or something that will fail unless somebody acts. Lines that strangers can cause are bounded: ten of a kind in a minute, then one
\`log.lines_left_out\` with the count, whose \`of\` is their event.

This page is made from the source: \`npm run -s log-events\`.

| event | level | text |
|---|---|---|
${rows.join('\n')}
`;
}
