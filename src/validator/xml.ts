/**
 * Reads the part of XML 1.0 that an MPD needs: elements, attributes and text. A DTD is refused,
 * only the five predefined entities are known, and limits bound the cost.
 */

export const XML_MAX_CHARS = 2 * 1024 * 1024;
const MAX_DEPTH = 32;
const MAX_ELEMENTS = 50_000;

export interface XmlElement {
  readonly name: string;
  readonly attributes: ReadonlyMap<string, string>;
  readonly children: readonly XmlElement[];
  readonly text: string;
}

interface Building extends XmlElement {
  readonly attributes: Map<string, string>;
  readonly children: Building[];
  text: string;
}

const ENTITIES: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };

/** Returns the root element, or what is wrong with the text. */
export function parseXml(text: string): XmlElement | string {
  if (text.length > XML_MAX_CHARS) return `longer than ${XML_MAX_CHARS} characters`;
  if (/<!(DOCTYPE|\[CDATA)/.test(text)) return 'DOCTYPE and CDATA are not read';
  const root: Building = { name: '', attributes: new Map(), children: [], text: '' };
  const stack = [root];
  let elements = 0;
  let at = 0;
  while (at < text.length) {
    const open = text.indexOf('<', at);
    stack.at(-1)!.text += decode(text.slice(at, open < 0 ? undefined : open));
    if (open < 0) break;
    const comment = text.startsWith('<!--', open);
    const close = comment ? text.indexOf('-->', open + 4) : endOfTag(text, open);
    if (close < 0) return 'a tag is not closed';
    at = close + (comment ? 3 : 1);
    if (comment || text[open + 1] === '?') continue;
    const inner = text.slice(open + 1, close);
    if (inner.startsWith('/')) {
      const ended = stack.pop();
      if (!ended || stack.length === 0 || ended.name !== inner.slice(1).trim()) return `</${inner.slice(1, 40)}> closes nothing`;
      continue;
    }
    const empty = inner.endsWith('/');
    const match = /^([A-Za-z_][\w:.-]*)(\s[\s\S]*)?$/.exec(empty ? inner.slice(0, -1) : inner);
    if (!match) return `not a tag: ${inner.slice(0, 40)}`;
    const element: Building = { name: match[1]!, attributes: new Map(), children: [], text: '' };
    for (const attribute of (match[2] ?? '').matchAll(/([\w:.-]+)\s*=\s*(?:"([^"<]*)"|'([^'<]*)')/g)) {
      if (element.attributes.has(attribute[1]!)) return `attribute ${attribute[1]} twice`;
      element.attributes.set(attribute[1]!, decode(attribute[2] ?? attribute[3] ?? ''));
    }
    if (++elements > MAX_ELEMENTS || stack.length > MAX_DEPTH) return 'too many or too deep elements';
    stack.at(-1)!.children.push(element);
    if (!empty) stack.push(element);
  }
  if (stack.length !== 1) return `<${stack.at(-1)!.name}> is not closed`;
  const [first, second] = root.children;
  return first && !second && root.text.trim() === '' ? first : 'not one root element';
}

/** Returns where a tag ends. A `>` in the quotes of an attribute does not end it. */
function endOfTag(text: string, from: number): number {
  let quote = '';
  for (let at = from; at < text.length; at++) {
    const char = text[at]!;
    if (quote !== '') quote = char === quote ? '' : quote;
    else if (char === '"' || char === "'") quote = char;
    else if (char === '>') return at;
  }
  return -1;
}

function decode(text: string): string {
  return text.replace(/&(#x?[\da-fA-F]{1,6}|\w{1,8});/g, (whole, name: string) => {
    if (!name.startsWith('#')) return ENTITIES[name] ?? whole;
    const code = Number(name.startsWith('#x') ? `0${name.slice(1)}` : name.slice(1));
    return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : whole;
  });
}

export const childrenOf = (element: XmlElement | undefined, name: string) =>
  (element?.children ?? []).filter((child) => child.name === name);
export const childOf = (element: XmlElement | undefined, name: string) => element?.children.find((child) => child.name === name);
