const UNCLEAN = /\0|\p{Cs}/u;

/** A member of a value, and what that is a member of. */
interface Place {
  readonly name: string;
  readonly of: Place | undefined;
}

/**
 * Where in a parsed JSON value there is text that PostgreSQL refuses, or that changes on its way: U+0000, or half a surrogate pair, which UTF-8 cannot
 * carry: every half becomes U+FFFD (Unicode 3.9, D76), so that two different texts would be one. Undefined: there is none. Does not recurse: a
 * value may be nested as deep as its size allows.
 */
export function uncleanTextIn(given: unknown): readonly string[] | undefined {
  const waiting: { value: unknown; place: Place | undefined }[] = [{ value: given, place: undefined }];
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    const { value, place } = next;
    if (typeof value === 'string' && UNCLEAN.test(value)) return pathOf(place);
    if (typeof value !== 'object' || value === null) continue;
    for (const [name, member] of Object.entries(value)) {
      if (UNCLEAN.test(name)) return pathOf(place);
      if (typeof member === 'string' || typeof member === 'object') waiting.push({ value: member, place: { name, of: place } });
    }
  }
  return undefined;
}

function pathOf(place: Place | undefined): string[] {
  const names: string[] = [];
  for (let at = place; at; at = at.of) names.push(at.name);
  return names.reverse();
}

/** Characters (code points) of a text: what people and JSON Schema count, where `length` counts the halves of some twice. */
export function characterCount(text: string): number {
  let count = 0;
  for (const _ of text) count++;
  return count;
}
