import type { TestEvent } from 'node:test/reporters';

/** One test that has ended, as `test-file.ts` reads it. A test comes after its subtests. */
export interface EndedTest {
  readonly name: string;
  readonly nesting: number;
  readonly passed: boolean;
  /** A `describe`: holds tests and is none. */
  readonly isSuite: boolean;
  /** Its reason, if it has one. */
  readonly skipped: boolean | string;
  readonly todo: boolean;
}

/** A reporter of node:test: a line of JSON for each test that has ended. */
export default async function* report(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  for await (const { type, data } of events) {
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    const { name, nesting, skip, todo, details } = data;
    const ended: EndedTest = {
      name,
      nesting,
      passed: type === 'test:pass',
      isSuite: (details as { type?: string }).type === 'suite',
      skipped: skip ?? false,
      todo: todo !== undefined && todo !== false,
    };
    yield `${JSON.stringify(ended)}\n`;
  }
}
