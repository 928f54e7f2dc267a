// npm run bench -- live|origin [--only NAME] [--long]
//
// Each bench is one file that exports its measurements; this one chooses, runs and reports them.
import { parseArgs } from 'node:util';

const { positionals } = parseArgs({
  allowPositionals: true,
  options: { only: { type: 'string' }, long: { type: 'boolean' }, runs: { type: 'string' } },
});
const name = positionals[0];
if (name !== 'live' && name !== 'origin') {
  console.error('usage: npm run bench -- live|origin [--only NAME] [--long] [--runs N]');
  process.exit(2);
}
