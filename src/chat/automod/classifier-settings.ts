import { VezaError } from '../../runtime/errors.js';
import { MAX_HOSTS } from './links.js';
import { checkTerms } from './terms.js';

/** How automatic moderation works in a room. */
export interface ClassifierSettings {
  /** Off: every text is allowed that is not too long. */
  enabled: boolean;
  /** Words and phrases that are refused. At most 200 of 100 characters, 8,000 in all. */
  blockedTerms: readonly string[];
  /** Words and phrases that are allowed here, whatever the built-in list says. */
  allowedTerms: readonly string[];
  links: 'allow' | 'hold' | 'refuse';
  /** Hosts that links may always lead to, with the hosts below them. At most 100. */
  allowedHosts: readonly string[];
  profanity: 'allow' | 'mask' | 'hold' | 'refuse';
  spam: 'allow' | 'hold' | 'refuse';
  /** `hold`: published if the remote classifier allows it, held otherwise. `retract`: published at once, and retracted and held if it does not. */
  remote: 'off' | 'hold' | 'retract';
  /** What counts when the remote classifier does not answer: `open` allows, `closed` holds. */
  remoteFails: 'open' | 'closed';
}

export const DEFAULT_CLASSIFIER_SETTINGS: ClassifierSettings = Object.freeze({
  enabled: true,
  blockedTerms: Object.freeze([]),
  allowedTerms: Object.freeze([]),
  links: 'allow',
  allowedHosts: Object.freeze([]),
  profanity: 'mask',
  spam: 'hold',
  remote: 'off',
  remoteFails: 'open',
});

/** Throws `bad_request` for settings that are out of bounds. Called where they are set. */
export function checkClassifierSettings(settings: ClassifierSettings): void {
  checkTerms(settings.blockedTerms, 'blockedTerms');
  checkTerms(settings.allowedTerms, 'allowedTerms');
  if (settings.allowedHosts.length > MAX_HOSTS)
    throw new VezaError('bad_request', `allowedHosts: ${settings.allowedHosts.length} hosts; at most ${MAX_HOSTS} are allowed`);
  for (const host of settings.allowedHosts) {
    if (!/^(?:\*\.)?(?:[a-z0-9-]{1,63}\.)+[a-z0-9-]{2,63}\.?$/i.test(host.trim()) || host.length > 253)
      throw new VezaError(
        'bad_request',
        `allowedHosts: "${host.slice(0, 80)}" is not a host name; write it like example.org, in ASCII (xn--…)`,
      );
  }
}
