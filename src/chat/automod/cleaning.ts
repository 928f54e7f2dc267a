/**
 * Characters that are removed from every message. A change of text direction makes a name or a text
 * read differently from how it was written, and also affects the lines around it. A tall stack of
 * combining marks on one letter covers other lines; one letter keeps at most this many.
 */
const MAX_MARKS = 4;
const OVERRIDE = /[\u202d\u202e]/;
const TURNING = /[\u202a-\u202e]/g;
const MARK = /^(?=\p{M})\p{Script=Inherited}$/u;
const isMark = (unit: number): boolean => unit >= 0x300 && unit < 0xfe30 && (unit <= 0x36f || MARK.test(String.fromCharCode(unit)));

/**
 * The text in the order in which it is shown, without direction characters. A right-to-left
 * override ends at its end character or at the end of the text.
 */
function unturned(text: string): string {
  let result = '';
  let index = 0;
  while (index < text.length) {
    const at = text.indexOf('\u202e', index);
    if (at < 0) break;
    let end = text.indexOf('\u202c', at + 1);
    if (end < 0) end = text.length;
    result += text.slice(index, at) + [...text.slice(at + 1, end)].reverse().join('');
    index = end;
  }
  return (result + text.slice(index)).replace(TURNING, '');
}

/**
 * Returns the text that may be published: the same string when there is nothing to remove. Linear.
 */
export function clean(text: string): string {
  const turned = OVERRIDE.test(text) ? unturned(text) : text;
  let result = '';
  let kept = 0;
  let marks = 0;
  for (let index = 0; index < turned.length; index++) {
    if (!isMark(turned.charCodeAt(index))) {
      marks = 0;
      continue;
    }
    if (++marks <= MAX_MARKS) continue;
    result += turned.slice(kept, index);
    kept = index + 1;
  }
  return kept === 0 ? turned : result + turned.slice(kept);
}
