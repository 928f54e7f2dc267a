/**
 * Channels and their broadcasts. A broadcast's id is the id of its recording and part of the
 * recording's address.
 */
export const channels = `
create table channels (
  id uuid primary key,
  slug text not null unique,
  title text not null,
  visibility text not null check (visibility in ('public', 'unlisted', 'private')),
  recording boolean not null default true,
  -- SHA-256. The previous key is good only for the show that was begun with it.
  stream_key_hash bytea not null unique,
  previous_key_hash bytea unique,
  created_at timestamptz not null default now()
);

create table broadcasts (
  id text primary key check (length(id) between 1 and 64),
  channel_id uuid not null references channels on delete cascade,
  title text not null,
  recording boolean not null,
  started_at timestamptz not null,
  ended_at timestamptz,
  duration_ms bigint,
  first_number bigint not null,
  last_number bigint,
  details jsonb not null default '{}'
);

create index broadcasts_by_channel on broadcasts (channel_id, started_at desc, id desc);
create index broadcasts_by_start on broadcasts (started_at desc, id desc);
create index broadcasts_unfinished on broadcasts (id) where ended_at is null;
`;
