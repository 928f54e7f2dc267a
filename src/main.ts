import { runService } from './compose/run.js';

await runService();
