import { VezaError } from '../../runtime/errors.js';

/**
 * Why a connection is ended, in RTMP's terms. `code` is the `code` of the status object that the client is shown;
 * `description` is for the person who reads the encoder's log.
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
  /** Veza is going down; the broadcaster may come back at once. */
  | 'NetConnection.Connect.AppShutdown'
  | 'NetStream.Play.Failed'
  /** No such key. OBS shows the description and does not retry. */
  | 'NetStream.Publish.Denied'
  /** The channel is held by another encoder. */
  | 'NetStream.Publish.BadName'
  /** The audio is of a kind that is not taken. */
  | 'NetStream.Publish.Rejected'
  /** Anything else that ends a stream. */
  | 'NetStream.Failed';

/** Bytes that no client of the protocol would send, or too many of them. */
export const violation = (description: string) => new RtmpRefusal('NetConnection.Call.Failed', description);

/** Audio that cannot be taken. */
export const rejected = (description: string) => new RtmpRefusal('NetStream.Publish.Rejected', description);

/** What the client is told of an error: Veza's codes in RTMP's terms. */
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
