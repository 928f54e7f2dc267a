/**
 * The title on each channel, written by the process that has the broadcast and read by the
 * processes that have the chat.
 */
export const nowPlaying = `
create table now_playing (
  channel_id uuid primary key references channels on delete cascade,
  -- Of the title in its broadcast: the same in every process, also in one that goes on with the show after another.
  title_id text not null,
  broadcast_id text not null,
  title text not null,
  artist text,
  -- When it began to be heard.
  started_at timestamptz not null,
  -- What the channel's room was told last, and when.
  told_id text,
  told_broadcast_id text,
  told_title text,
  told_artist text,
  told_at timestamptz,
  -- A process tells it; another one may after this.
  claimed_until timestamptz
);
create index now_playing_untold on now_playing (started_at) where told_id is distinct from title_id;
`;
