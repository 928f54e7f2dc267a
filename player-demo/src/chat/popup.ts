/**
 * Opens a small element over the chat, near what it belongs to. Escape, a click elsewhere or a
 * choice closes it, and the focus returns to where it was.
 */
export function openPopup(inside: HTMLElement, element: HTMLElement, near: Element, onClosed: () => void = () => {}): () => void {
  const before = document.activeElement;
  inside.append(element);
  const frame = inside.getBoundingClientRect();
  const anchor = near.getBoundingClientRect();
  const { offsetHeight: height, offsetWidth: width } = element;
  const below = anchor.bottom - frame.top + 4;
  const top = below + height <= frame.height ? below : Math.max(4, anchor.top - frame.top - height - 4);
  element.style.top = `${Math.min(top, Math.max(4, frame.height - height - 4))}px`;
  element.style.left = `${Math.max(4, Math.min(anchor.right - frame.left - width, frame.width - width - 4))}px`;
  let isOpen = true;
  const close = () => {
    if (!isOpen) return;
    isOpen = false;
    document.removeEventListener('pointerdown', elsewhere, true);
    const hadFocus = element.contains(document.activeElement);
    element.remove();
    if (hadFocus && before instanceof HTMLElement && before.isConnected) before.focus({ preventScroll: true });
    onClosed();
  };
  const elsewhere = (event: Event) => {
    if (event.target instanceof Node && !element.contains(event.target)) close();
  };
  document.addEventListener('pointerdown', elsewhere, true);
  element.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    event.stopPropagation();
    close();
  });
  element.querySelector<HTMLElement>('button:not([tabindex="-1"]), input')?.focus({ preventScroll: true });
  return close;
}
