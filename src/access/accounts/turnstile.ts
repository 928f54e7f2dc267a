import { VezaError } from '../../runtime/errors.js';

export interface TurnstilePlaces {
  readonly strangers: number;
  readonly known: number;
}

/** One for all: where it was thrown is known, and finding that out anew is a good part of what a refusal costs. */
const FULL = new VezaError('busy', 'Too many people sign in at once. Try again in a few seconds.', { details: { retryAfterS: 2 } });

/**
 * Lets so many tasks run at one time, and turns the others away at once, before they cost anything. Those who are known have places
 * that strangers cannot take, so that a flood does not stand in their way.
 */
export class Turnstile {
  readonly #places: TurnstilePlaces;
  #strangers = 0;
  #known = 0;

  constructor(places: TurnstilePlaces) {
    this.#places = places;
  }

  /** Rejects with `busy` when there is no place. */
  async pass<T>(isKnown: boolean, task: () => Promise<T>): Promise<T> {
    const knownPlace = isKnown && this.#known < this.#places.known;
    if (!knownPlace && this.#strangers >= this.#places.strangers) throw FULL;
    if (knownPlace) this.#known++;
    else this.#strangers++;
    try {
      return await task();
    } finally {
      if (knownPlace) this.#known--;
      else this.#strangers--;
    }
  }
}
