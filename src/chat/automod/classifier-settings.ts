import { VezaError } from '../../runtime/errors.js';
import { MAX_HOSTS } from './links.js';
import { checkTerms } from './terms.js';

/** The automod settings of a room. */
export interface ClassifierSettings {
  /** False: every text is allowed up to the limit of length. */
  enabled: boolean;
  /**
   * Words and phrases that are refused. At most 200, each of at most 100 characters, and at most
   * 8,000 characters in all.
   */
  blockedTerms: readonly string[];
  /** Words and phrases that are allowed in this room even if the built-in list has them. */
  allowedTerms: readonly string[];
  links: 'allow' | 'hold' | 'refuse';
  /** Hosts that links may always lead to, with their subdomains. At most 100. */
  allowedHosts: readonly string[];
  profanity: 'allow' | 'mask' | 'hold' | 'refuse';
  spam: 'allow' | 'hold' | 'refuse';
  /**
   * `hold`: a message is published when the remote classifier allows it, and held otherwise.
   * `retract`: a message is published at once, and retracted and held when the remote classifier
   * rejects it.
   */
  remote: 'off' | 'hold' | 'retract';
  /** The verdict when the remote classifier does not answer: `open` allows, `closed` holds. */
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

/** Throws `bad_request` when a setting is out of bounds. Called where settings are stored. */
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
