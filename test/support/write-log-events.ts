import { writeFile } from 'node:fs/promises';
import { logEventsPage } from './log-events.js';

/** `npm run -s log-events`: writes docs/log-events.md. */
await writeFile('docs/log-events.md', logEventsPage());
