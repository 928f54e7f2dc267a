/**
 * What a member has seen of a room, as one number: the same entries in the same order give the same, and hardly anything else does. So the views of
 * a hundred thousand members are compared with the store without anybody keeping them.
 */
export interface ViewHash {
  a: number;
  b: number;
}

export const emptyView = (): ViewHash => ({ a: 0x811c9dc5, b: 0x2545f491 });

/** The next entry. `mid` empty: it has none. */
export function see(view: ViewHash, offset: number, type: string, mid: string): void {
  let { a, b } = view;
  const mix = (value: number) => {
    a = Math.imul(a ^ value, 0x01000193);
    b = Math.imul((b ^ value) + (a >>> 15), 0x85ebca6b);
  };
  mix(offset);
  for (let index = 0; index < type.length; index++) mix(type.charCodeAt(index));
  for (let index = 0; index < mid.length; index++) mix(mid.charCodeAt(index));
  view.a = a;
  view.b = b;
}

export const nameOf = ({ a, b }: ViewHash): string => `${(a >>> 0).toString(36)}-${(b >>> 0).toString(36)}`;
