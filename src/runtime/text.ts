const UNCLEAN = /\0|\p{Cs}/u;

/** A member of a JSON value, and the place of the value that contains it. */
interface JsonMember {
  readonly name: string;
  readonly of: JsonMember | undefined;
}

/**
 * The path to text in a parsed JSON value that PostgreSQL refuses or that would change when stored.
 * That is U+0000, or half a surrogate pair: UTF-8 cannot carry one, and each becomes U+FFFD
 * (Unicode 3.9, D76), so that two different texts would become the same. Returns undefined when
 * there is no such text. It does not recurse: a value may be nested as deep as its size allows.
 */
export function uncleanTextIn(given: unknown): readonly string[] | undefined {
  const waiting: { value: unknown; place: JsonMember | undefined }[] = [{ value: given, place: undefined }];
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

function pathOf(place: JsonMember | undefined): string[] {
  const names: string[] = [];
  for (let at = place; at; at = at.of) names.push(at.name);
  return names.reverse();
}

/**
 * The number of characters (code points) in a text, as people and JSON Schema count. `length`
 * counts a surrogate pair as two.
 */
export function characterCount(text: string): number {
  let count = 0;
  for (const _ of text) count++;
  return count;
}
