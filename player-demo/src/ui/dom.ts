type Child = Node | string | null;
type Props = Record<string, string | number | boolean | ((event: Event) => void)>;

/**
 * Makes an element: `on…` are event listeners, true is an attribute without value, false leaves it
 * out.
 */
export function h<K extends keyof HTMLElementTagNameMap>(tag: K, props: Props = {}, ...children: Child[]): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (typeof value === 'function') element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, '');
    else if (value !== false) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Our own icons, 24 × 24, in the colour of the text. */
const PATHS = {
  play: 'M8 5.3v13.4c0 .8.9 1.3 1.6.8l10-6.7a1 1 0 0 0 0-1.6l-10-6.7c-.7-.5-1.6 0-1.6.8Z',
  pause:
    'M7 4.5h3a1 1 0 0 1 1 1v13a1 1 0 0 1-1 1H7a1 1 0 0 1-1-1v-13a1 1 0 0 1 1-1Zm7 0h3a1 1 0 0 1 1 1v13a1 1 0 0 1-1 1h-3a1 1 0 0 1-1-1v-13a1 1 0 0 1 1-1Z',
  volume:
    'M4 9.5h3.2L12 5.6v12.8l-4.8-3.9H4a.5.5 0 0 1-.5-.5v-4a.5.5 0 0 1 .5-.5Zm11.2-1.3a5.4 5.4 0 0 1 0 7.6l-1.1-1.1a3.8 3.8 0 0 0 0-5.4l1.1-1.1Zm2.5-2.5a8.9 8.9 0 0 1 0 12.6l-1.1-1.1a7.3 7.3 0 0 0 0-10.4l1.1-1.1Z',
  muted:
    'M4 9.5h3.2L12 5.6v12.8l-4.8-3.9H4a.5.5 0 0 1-.5-.5v-4a.5.5 0 0 1 .5-.5Zm11.1-.3 2.4 2.4 2.4-2.4 1.1 1.1-2.4 2.4 2.4 2.4-1.1 1.1-2.4-2.4-2.4 2.4-1.1-1.1 2.4-2.4-2.4-2.4 1.1-1.1Z',
  back: 'M12 5V2.4L7.6 5.9 12 9.4V6.6a6.2 6.2 0 1 1-6.2 6.2H4.2A7.8 7.8 0 1 0 12 5Z',
  forward: 'M12 5V2.4l4.4 3.5L12 9.4V6.6a6.2 6.2 0 1 0 6.2 6.2h1.6A7.8 7.8 0 1 1 12 5Z',
  smile:
    'M12 3.5a8.5 8.5 0 1 1 0 17 8.5 8.5 0 0 1 0-17Zm0 1.6a6.9 6.9 0 1 0 0 13.8 6.9 6.9 0 0 0 0-13.8ZM9.2 9a1.1 1.1 0 1 1 0 2.2 1.1 1.1 0 0 1 0-2.2Zm5.6 0a1.1 1.1 0 1 1 0 2.2 1.1 1.1 0 0 1 0-2.2Zm-6.4 4.6a.8.8 0 0 1 1.1.2 3 3 0 0 0 5 0 .8.8 0 1 1 1.3.9 4.6 4.6 0 0 1-7.6 0 .8.8 0 0 1 .2-1.1Z',
  send: 'M4.3 19.6 21 12 4.3 4.4v5.9l9.3 1.7-9.3 1.7v5.9Z',
  more: 'M6 10.4a1.6 1.6 0 1 1 0 3.2 1.6 1.6 0 0 1 0-3.2Zm6 0a1.6 1.6 0 1 1 0 3.2 1.6 1.6 0 0 1 0-3.2Zm6 0a1.6 1.6 0 1 1 0 3.2 1.6 1.6 0 0 1 0-3.2Z',
  close: 'm12 10.9 4.6-4.6 1.1 1.1-4.6 4.6 4.6 4.6-1.1 1.1-4.6-4.6-4.6 4.6-1.1-1.1 4.6-4.6-4.6-4.6 1.1-1.1 4.6 4.6Z',
} as const;

export function icon(name: keyof typeof PATHS): SVGSVGElement {
  const namespace = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(namespace, 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(namespace, 'path');
  path.setAttribute('d', PATHS[name]);
  path.setAttribute('fill', 'currentColor');
  svg.append(path);
  return svg;
}

/** Sets the text only when it differs: screen readers and layout notice changes only. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** 75 → "1:15"; 3,700 → "1:01:40". */
export function clockText(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const two = (value: number) => String(value).padStart(2, '0');
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}
