import assert from 'node:assert/strict';
import { test } from 'node:test';
import { changelogSection, ReleaseError } from '../../infra/release.js';

const CHANGELOG =
  '# Changelog\n\n## 1.2.0 – 2030-01-31\n\n### Added\n\n- Sound.\n\n## 1.1.0 – unreleased\n\n- X.\n\n## 1.0.0 – 2029-01-01\n';

test('a release takes its date and notes from its own section of the changelog', () => {
  assert.deepEqual(changelogSection(CHANGELOG, '1.2.0'), { date: '2030-01-31', notes: '### Added\n\n- Sound.' });
});

test('a version without a section, without a date or without notes is not released', () => {
  const refused = (version: string, message: RegExp) =>
    assert.throws(
      () => changelogSection(CHANGELOG, version),
      (error) => error instanceof ReleaseError && message.test(error.message),
    );
  refused('1.2', /no section "## 1\.2 – DATE"/);
  refused('1.1.0', /give it a date/);
  refused('1.0.0', /empty/);
});
