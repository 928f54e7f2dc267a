import { VezaError } from '../../runtime/errors.js';
import { type ClassifierSettings, checkClassifierSettings, DEFAULT_CLASSIFIER_SETTINGS } from '../automod/classifier-settings.js';
import { ROOM_ROLES, type RoomRole } from '../protocol/protocol.js';

export const rankOf = (role: RoomRole): number => ROOM_ROLES.indexOf(role);

/**
 * The settings of a room, set by its moderators and owner. Stored as JSON in `rooms.settings`. A
 * setting that is missing there has its default.
 */
export interface RoomSettings {
  /** Seconds between two messages of one person. 0: off. */
  readonly slowS: number;
  /** Roles that slow mode does not apply to. */
  readonly slowExempt: readonly RoomRole[];
  /**
   * The age in minutes that an account must have to write. 0: off. An identity of another system
   * has no age here, and may not write while this is on.
   */
  readonly followersMin: number;
  /** Refuses a text that was published in the room within the last hour. */
  readonly unique: boolean;
  /** Allows only emoji and spaces. */
  readonly emoteOnly: boolean;
  /**
   * One switch against a raid: raises the settings above to at least `SHIELD`, and makes automod
   * hold messages that it would otherwise allow with a doubt.
   */
  readonly shield: boolean;
  /** Whether clients that are not signed in may read. */
  readonly guests: 'read' | 'none';
  /** Messages per second of one person. `burst`: messages that may be sent at once. */
  readonly perS: number;
  readonly burst: number;
  /** Messages per second of all people together. */
  readonly roomPerS: number;
  /** Whether automod is on. Its settings follow; `ClassifierSettings` (automod) describes them. */
  readonly moderated: boolean;
  readonly links: ClassifierSettings['links'];
  readonly allowedHosts: readonly string[];
  readonly profanity: ClassifierSettings['profanity'];
  readonly spam: ClassifierSettings['spam'];
  readonly remote: ClassifierSettings['remote'];
  readonly remoteFails: ClassifierSettings['remoteFails'];
}

/** The settings that every member is sent. The others would show how to evade them. */
export const PUBLIC_SETTINGS = ['slowS', 'slowExempt', 'followersMin', 'unique', 'emoteOnly', 'shield', 'guests', 'perS', 'burst'] as const;

/** The part of these settings that every member is sent. */
export const publicPart = (settings: object): object =>
  Object.fromEntries(Object.entries(settings).filter(([name]) => (PUBLIC_SETTINGS as readonly string[]).includes(name)));

export const DEFAULT_SETTINGS: RoomSettings = {
  slowS: 0,
  slowExempt: ['moderator', 'host', 'owner', 'admin'],
  followersMin: 0,
  unique: false,
  emoteOnly: false,
  shield: false,
  guests: 'read',
  perS: 5,
  burst: 10,
  roomPerS: 50,
  moderated: DEFAULT_CLASSIFIER_SETTINGS.enabled,
  links: DEFAULT_CLASSIFIER_SETTINGS.links,
  allowedHosts: DEFAULT_CLASSIFIER_SETTINGS.allowedHosts,
  profanity: DEFAULT_CLASSIFIER_SETTINGS.profanity,
  spam: DEFAULT_CLASSIFIER_SETTINGS.spam,
  remote: DEFAULT_CLASSIFIER_SETTINGS.remote,
  remoteFails: DEFAULT_CLASSIFIER_SETTINGS.remoteFails,
};

export const CHOICES = {
  guests: ['read', 'none'],
  links: ['allow', 'hold', 'refuse'],
  profanity: ['allow', 'mask', 'hold', 'refuse'],
  spam: ['allow', 'hold', 'refuse'],
  remote: ['off', 'hold', 'retract'],
  remoteFails: ['open', 'closed'],
} as const satisfies { [name in keyof RoomSettings]?: readonly RoomSettings[name][] };

/** The lowest and highest value of each setting, inclusive. */
export const SETTING_LIMITS = {
  slowS: [0, 3600],
  followersMin: [0, 525_600],
  perS: [1, 100],
  burst: [1, 100],
  roomPerS: [1, 1000],
} as const satisfies Partial<Record<keyof RoomSettings, readonly [number, number]>>;

/** The minimum that the shield sets. */
const SHIELD = { slowS: 10, followersMin: 1440, unique: true, perS: 1, burst: 3 } as const;

const BOOLEANS = ['unique', 'emoteOnly', 'shield', 'moderated'] as const;
const MAX_HOSTS = 100;

/**
 * Applies changes to settings. Throws `bad_request` for a wrong value and names the setting. The
 * changes come from people, bots and frames.
 */
export function changedSettings(before: RoomSettings, changes: Readonly<Record<string, unknown>>): RoomSettings {
  const after: Record<string, unknown> = { ...before };
  for (const [name, value] of Object.entries(changes)) {
    if (value === undefined) continue;
    if (!Object.hasOwn(DEFAULT_SETTINGS, name)) throw wrong(name, `there is no setting "${name.slice(0, 40)}"`);
    const reason = problemOf(name as keyof RoomSettings, value);
    if (reason !== undefined) throw wrong(name, reason);
    after[name] = name === 'slowExempt' ? [...new Set(value as RoomRole[])] : value;
  }
  const settings = after as unknown as RoomSettings;
  checkClassifierSettings(moderationOf(settings, NO_TERMS));
  return settings;
}

/**
 * The settings in a row of `rooms`. An invalid value counts as not set, so that an old row never
 * keeps a room from opening.
 */
export function storedSettings(stored: unknown): RoomSettings {
  const kept: Record<string, unknown> = { ...DEFAULT_SETTINGS };
  if (typeof stored === 'object' && stored !== null)
    for (const [name, value] of Object.entries(stored))
      if (Object.hasOwn(DEFAULT_SETTINGS, name) && problemOf(name as keyof RoomSettings, value) === undefined) kept[name] = value;
  return kept as unknown as RoomSettings;
}

/** The settings in force: with the shield on, the stricter of the stored value and `SHIELD`. */
export function settingsInForce(settings: RoomSettings): RoomSettings {
  if (!settings.shield) return settings;
  return {
    ...settings,
    slowS: Math.max(settings.slowS, SHIELD.slowS),
    followersMin: Math.max(settings.followersMin, SHIELD.followersMin),
    unique: SHIELD.unique,
    perS: Math.min(settings.perS, SHIELD.perS),
    burst: Math.min(settings.burst, SHIELD.burst),
    moderated: true,
    links: settings.links === 'allow' ? 'hold' : settings.links,
    profanity: settings.profanity === 'refuse' ? 'refuse' : 'hold',
    spam: settings.spam === 'allow' ? 'hold' : settings.spam,
  };
}

export interface RoomTerms {
  readonly blocked: readonly string[];
  readonly allowed: readonly string[];
}

export const NO_TERMS: RoomTerms = { blocked: [], allowed: [] };

/** The automod settings of a room. `settings`: the settings in force. */
export const moderationOf = (settings: RoomSettings, terms: RoomTerms): ClassifierSettings => ({
  enabled: settings.moderated,
  blockedTerms: terms.blocked,
  allowedTerms: terms.allowed,
  links: settings.links,
  allowedHosts: settings.allowedHosts,
  profanity: settings.profanity,
  spam: settings.spam,
  remote: settings.remote,
  remoteFails: settings.remoteFails,
});

function problemOf(name: keyof RoomSettings, value: unknown): string | undefined {
  if (name in SETTING_LIMITS) {
    const [least, most] = SETTING_LIMITS[name as keyof typeof SETTING_LIMITS];
    return Number.isInteger(value) && (value as number) >= least && (value as number) <= most
      ? undefined
      : `a whole number from ${least} to ${most}`;
  }
  if ((BOOLEANS as readonly string[]).includes(name)) return typeof value === 'boolean' ? undefined : 'true or false';
  if (name in CHOICES) {
    const choices: readonly unknown[] = CHOICES[name as keyof typeof CHOICES];
    return choices.includes(value) ? undefined : `one of ${choices.join(', ')}`;
  }
  if (name === 'allowedHosts')
    return Array.isArray(value) && value.length <= MAX_HOSTS && value.every((host) => typeof host === 'string' && host.length <= 253)
      ? undefined
      : `a list of at most ${MAX_HOSTS} host names`;
  const isRoles =
    Array.isArray(value) && value.length <= ROOM_ROLES.length && value.every((role) => (ROOM_ROLES as readonly unknown[]).includes(role));
  return isRoles ? undefined : `a list of ${ROOM_ROLES.join(', ')}`;
}

const wrong = (name: string, reason: string) =>
  new VezaError('bad_request', `${name.slice(0, 40)}: ${reason}.`, { details: { at: name.slice(0, 40) } });
