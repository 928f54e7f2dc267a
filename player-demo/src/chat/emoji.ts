import './menu.css';
import { h } from '../ui/dom';

const EMOJI: readonly (readonly [string, string])[] = [
  ['👍', 'thumbs up yes'],
  ['❤️', 'heart love'],
  ['😂', 'tears of joy laugh'],
  ['🎉', 'party celebrate'],
  ['🔥', 'fire hot'],
  ['👏', 'clap applause'],
  ['🙏', 'thanks please'],
  ['😮', 'surprised wow'],
  ['😀', 'grin happy'],
  ['😄', 'smile happy'],
  ['😉', 'wink'],
  ['😊', 'blush smile'],
  ['😍', 'in love eyes'],
  ['😘', 'kiss'],
  ['😎', 'cool sunglasses'],
  ['🤩', 'star struck'],
  ['🤔', 'thinking'],
  ['🙃', 'upside down'],
  ['😅', 'sweat laugh'],
  ['🤣', 'rolling laugh'],
  ['😢', 'sad tear'],
  ['😭', 'cry loud'],
  ['😡', 'angry'],
  ['😴', 'sleep tired'],
  ['🥳', 'party face'],
  ['🤯', 'mind blown'],
  ['😇', 'angel innocent'],
  ['🤗', 'hug'],
  ['🙄', 'eye roll'],
  ['😬', 'grimace awkward'],
  ['🤷', 'shrug'],
  ['🙌', 'raised hands hooray'],
  ['👋', 'wave hello bye'],
  ['💪', 'strong muscle'],
  ['🤘', 'rock horns'],
  ['✌️', 'peace victory'],
  ['👌', 'ok fine'],
  ['👎', 'thumbs down no'],
  ['👀', 'eyes look'],
  ['🫶', 'heart hands'],
  ['🎵', 'music note'],
  ['🎶', 'music notes'],
  ['🎧', 'headphones listen'],
  ['🎤', 'microphone sing'],
  ['🎸', 'guitar'],
  ['🎹', 'keys piano'],
  ['🥁', 'drum'],
  ['🎷', 'saxophone'],
  ['🎻', 'violin'],
  ['📻', 'radio'],
  ['🔊', 'loud speaker'],
  ['💃', 'dance woman'],
  ['🕺', 'dance man'],
  ['✨', 'sparkles'],
  ['⭐', 'star'],
  ['💯', 'hundred perfect'],
  ['🌊', 'wave sea'],
  ['🌙', 'moon night'],
  ['☀️', 'sun morning'],
  ['☕', 'coffee tea'],
  ['🍻', 'beer cheers'],
  ['🚀', 'rocket'],
  ['✅', 'check done'],
  ['❓', 'question'],
];
const COLUMNS = 8;

/** The first emoji, offered as reactions without opening the picker. */
export const QUICK = EMOJI.slice(0, 6).map(([emoji]) => emoji);

/**
 * A small grid of emoji with a search. Arrow keys move in it, Escape closes it; then `pick` gets
 * undefined.
 */
export function emojiPicker(pick: (emoji: string | undefined) => void): HTMLElement {
  const search = h('input', { type: 'text', placeholder: 'Search emoji', 'aria-label': 'Search emoji', autocomplete: 'off' });
  const grid = h('div', { class: 'emoji-grid', role: 'grid', 'aria-label': 'Emoji' });
  const fill = () => {
    const words = search.value.trim().toLowerCase();
    const found = EMOJI.filter(([emoji, name]) => words === '' || name.includes(words) || emoji === words);
    const buttons = found.map(([emoji, name], index) =>
      h('button', { type: 'button', 'aria-label': name, title: name, tabindex: index === 0 ? 0 : -1, onclick: () => pick(emoji) }, emoji),
    );
    grid.replaceChildren(...buttons);
    if (buttons.length === 0) grid.append(h('p', {}, 'No emoji has this name.'));
  };
  const move = (by: number) => {
    const buttons = [...grid.querySelectorAll('button')];
    const at = buttons.indexOf(document.activeElement as HTMLButtonElement);
    const to = at + by;
    if (to < 0) search.focus();
    else {
      const next = buttons[Math.min(buttons.length - 1, to)];
      for (const button of buttons) button.tabIndex = button === next ? 0 : -1;
      next?.focus();
    }
  };
  search.addEventListener('input', fill);
  search.addEventListener('keydown', (event) => {
    if (event.key === 'ArrowDown') {
      event.preventDefault();
      grid.querySelector('button')?.focus();
    } else if (event.key === 'Enter') {
      event.preventDefault();
      grid.querySelector('button')?.click();
    }
  });
  grid.addEventListener('keydown', (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -COLUMNS, ArrowDown: COLUMNS }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    move(by);
  });
  fill();
  const element = h('div', { class: 'emoji-picker', role: 'dialog', 'aria-label': 'Emoji' }, search, grid);
  element.addEventListener('keydown', (event) => {
    event.stopPropagation();
    if (event.key === 'Escape') pick(undefined);
  });
  return element;
}
