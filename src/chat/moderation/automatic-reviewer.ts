import type { Clock } from '../../runtime/clock.js';
import type { Log } from '../../runtime/log.js';
import type { Classification, ClassificationInput, Classifier } from '../automod/classifier.js';
import { Retractions } from '../automod/retractions.js';
import type { Author, ContentReviewer, Publish, ReviewOutcome, RoomInfo } from '../rooms/room.js';
import type { ModerationService } from './service.js';
import { rankOf } from './settings.js';

/** A published message, and the input for classifying it remotely. */
interface PublishedMessage {
  readonly room: RoomInfo;
  readonly author: Author;
  readonly mid: string;
  readonly body: Publish['body'];
  readonly input: ClassificationInput;
}

export interface AutomaticReviewerOptions {
  readonly automod: Classifier;
  readonly moderation: Pick<ModerationService, 'rules' | 'retractMessage'>;
  readonly clock: Clock;
  readonly log: Log;
}

/** The reviewer where automod is off: allows every message. */
export const ALLOW_ALL: ContentReviewer = { review: () => ({ kind: 'allow' }) };

/**
 * Classifies each message by the room's settings: first with the local rules, and then with the
 * remote classifier if the settings require it and the local rules allow the message. In a room
 * with `remote: 'retract'` the remote classifier is asked after publishing.
 */
export class AutomaticReviewer implements ContentReviewer {
  readonly #automod: Classifier;
  readonly #moderation: AutomaticReviewerOptions['moderation'];
  readonly #retractions: Retractions<PublishedMessage>;

  constructor({ automod, moderation, clock, log }: AutomaticReviewerOptions) {
    this.#automod = automod;
    this.#moderation = moderation;
    this.#retractions = new Retractions({
      objection: async ({ input }) => {
        const verdict = await automod.classifyRemotely(input);
        return verdict.action === 'allow' ? undefined : categoriesOf(verdict);
      },
      takeBack: (message, reason) => moderation.retractMessage(message.room, message, reason),
      clock,
      log,
    });
  }

  async review({ room, author, mid, body }: Parameters<ContentReviewer['review']>[0]): Promise<ReviewOutcome> {
    const automod = this.#automod;
    const settings = this.#moderation.rules.classifierSettingsOf(room.id);
    const privileged = rankOf(author.role) >= rankOf('moderator');
    const input = { roomId: room.id, authorId: author.id, messageId: mid, privileged, text: body.text, settings };
    const local = automod.classify(input);
    // The local rules take microseconds. A message that they do not allow is not sent to the remote
    // classifier.
    const isRemote = (local.action === 'allow' || local.action === 'mask') && automod.asksRemotely(input);
    const isAfterwards = isRemote && settings.remote === 'retract' && !this.#retractions.isFull;
    const remote = isRemote && !isAfterwards ? await automod.classifyRemotely(input) : local;
    const verdict = remote.action === 'allow' ? local : remote;
    if (verdict.action === 'allow' || verdict.action === 'mask')
      return {
        kind: 'allow',
        ...(verdict.action === 'mask' && { text: verdict.text }),
        ...(isAfterwards && { published: () => this.#retractions.judgeLater({ room, author, mid, body, input }) }),
      };
    const reason = categoriesOf(verdict);
    if (verdict.action === 'hold') return { kind: 'hold', reason };
    // A flood depends on time: the same message is allowed later.
    return verdict.reasons[0]?.rule === 'flood'
      ? { kind: 'refuse', code: 'rate_limited', reason: 'Not so fast.', retryMs: Math.ceil(1000 / automod.pace.perS) }
      : { kind: 'refuse', code: 'moderated', reason: `Not allowed here: ${reason}.` };
  }

  /**
   * Published messages that could not be classified or retracted in any attempt. The count only
   * rises.
   */
  get retractionsFailed(): number {
    return this.#retractions.failed;
  }

  /** Waits until every published message is classified. A second call does no harm. */
  stop(): Promise<void> {
    return this.#retractions.stop();
  }
}

const categoriesOf = (verdict: Exclude<Classification, { action: 'allow' }>) => verdict.reasons.map(({ category }) => category).join(', ');
