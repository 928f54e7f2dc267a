import { VezaError } from '../../runtime/errors.js';

/**
 * Why a connection is ended, in RTMP's terms. `code` is the code of the status object that the
 * client receives. The message is for the person who reads the encoder's log.
 */
export class RtmpRefusal extends Error {
  readonly code: RtmpStatusCode;

  constructor(code: RtmpStatusCode, description: string) {
    super(description);
    this.name = 'RtmpRefusal';
    this.code = code;
  }
}

export type RtmpStatusCode =
  /** The app in the address is not `live`. */
  | 'NetConnection.Connect.InvalidApp'
  /** The bytes break the protocol or a limit, or a deadline passed. */
  | 'NetConnection.Call.Failed'
  /** The server stops. The broadcaster may connect again at once. */
  | 'NetConnection.Connect.AppShutdown'
  | 'NetStream.Play.Failed'
  /** The stream key is unknown. OBS shows the description and does not connect again. */
  | 'NetStream.Publish.Denied'
  /** Another encoder is on air on the channel. */
  | 'NetStream.Publish.BadName'
  /** The audio is of a kind that is not accepted. */
  | 'NetStream.Publish.Rejected'
  /** Any other reason to end a stream. */
  | 'NetStream.Failed';

/** For bytes that break the protocol or exceed a limit. */
export const violation = (description: string) => new RtmpRefusal('NetConnection.Call.Failed', description);

/** For audio that is malformed or not accepted. */
export const rejected = (description: string) => new RtmpRefusal('NetStream.Publish.Rejected', description);

/** Returns an error in RTMP's terms, as the client is sent it. */
export function refusalOf(error: unknown): RtmpRefusal {
  if (error instanceof RtmpRefusal) return error;
  if (error instanceof VezaError) return new RtmpRefusal(statusCodeOf(error.code), error.message);
  return new RtmpRefusal('NetStream.Failed', 'an internal error');
}

export function statusCodeOf(code: string): RtmpStatusCode {
  switch (code) {
    case 'unauthorized':
    case 'forbidden':
    case 'not_found':
      return 'NetStream.Publish.Denied';
    case 'displaced':
    case 'conflict':
      return 'NetStream.Publish.BadName';
    case 'unsupported_media':
    case 'bad_request':
      return 'NetStream.Publish.Rejected';
    case 'unavailable':
      return 'NetConnection.Connect.AppShutdown';
    default:
      return 'NetStream.Failed';
  }
}
