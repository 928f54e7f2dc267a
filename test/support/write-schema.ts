import { writeFile } from 'node:fs/promises';
import { schemaOfMigrations } from './schema.js';

/** `npm run -s schema`: writes docs/schema.sql. */
await writeFile('docs/schema.sql', (await schemaOfMigrations()).text);
