/**
 * The decisions of moderators in chat rooms, and the journal from which every process learns of
 * them.
 *
 * A user's id is text: an account's UUID, or `gateway:{sub}` and the like for a person whom another
 * system vouches for.
 */
export const chatModeration = `
-- The journal. Its versions are given in the order of commits: whoever writes one holds the row of the counter until he commits. The triggers are
-- deferred to the very end of a transaction, so that this is the last lock anybody takes. A process reads what is above the last one it knows.
create table chat_change_count (
  one boolean primary key default true check (one),
  version bigint not null
);
insert into chat_change_count (version) values (0);
create table chat_changes (
  version bigint primary key,
  at timestamptz not null default now(),
  kind text not null check (kind in ('rules', 'sanction', 'channel', 'member', 'account', 'session')),
  room_id uuid,
  channel_id uuid,
  user_id text,
  session_id uuid
);
create index chat_changes_by_time on chat_changes (at);
create function chat_has_changed(kind text, room_id uuid, channel_id uuid, user_id text, session_id uuid) returns void language plpgsql as $$
declare next bigint;
begin
  update chat_change_count set version = version + 1 returning version into next;
  insert into chat_changes (version, kind, room_id, channel_id, user_id, session_id) values (next, kind, room_id, channel_id, user_id, session_id);
end $$;

create function chat_rules_have_changed() returns trigger language plpgsql as $$
begin
  if tg_table_name = 'rooms' then perform chat_has_changed('rules', new.id, new.channel_id, null, null);
  elsif tg_op = 'DELETE' then perform chat_has_changed('rules', old.room_id, null, null, null);
  else perform chat_has_changed('rules', new.room_id, null, null, null);
  end if;
  return null;
end $$;
create constraint trigger rooms_change_chat after update of settings on rooms deferrable initially deferred
  for each row when (old.settings is distinct from new.settings) execute function chat_rules_have_changed();

create function chat_sanction_has_changed() returns trigger language plpgsql as $$
begin
  perform chat_has_changed('sanction', new.room_id, null, new.user_id, null);
  return null;
end $$;

create table room_bans (
  id uuid primary key,
  room_id uuid not null references rooms on delete cascade,
  user_id text not null,
  user_name text not null,
  -- He may write on, and nobody else sees it.
  shadow boolean not null,
  reason text,
  by_id text not null,
  by_name text not null,
  created_at timestamptz not null,
  -- Null: for good.
  until timestamptz,
  lifted_at timestamptz
);
create unique index room_bans_in_force on room_bans (room_id, user_id) where lifted_at is null;
create index room_bans_by_age on room_bans (room_id, created_at desc, id desc) where lifted_at is null;
create index room_bans_by_end on room_bans (until) where lifted_at is null;
create constraint trigger room_bans_change_chat after insert or update on room_bans deferrable initially deferred
  for each row execute function chat_sanction_has_changed();

-- With every ban of an account there may be one of where it wrote from: an HMAC, never the address, and never for good.
create table room_address_bans (
  room_id uuid not null references rooms on delete cascade,
  address_hash text not null,
  ban_id uuid not null references room_bans on delete cascade,
  until timestamptz not null,
  primary key (room_id, address_hash)
);
create index room_address_bans_by_ban on room_address_bans (ban_id);
create index room_address_bans_by_end on room_address_bans (until);
create constraint trigger room_address_bans_change_chat after insert or update on room_address_bans deferrable initially deferred
  for each row execute function chat_rules_have_changed();

create table room_timeouts (
  room_id uuid not null references rooms on delete cascade,
  user_id text not null,
  user_name text not null,
  reason text,
  by_id text not null,
  by_name text not null,
  created_at timestamptz not null,
  until timestamptz not null,
  primary key (room_id, user_id)
);
create index room_timeouts_by_end on room_timeouts (until);
create constraint trigger room_timeouts_change_chat after insert or update on room_timeouts deferrable initially deferred
  for each row execute function chat_sanction_has_changed();

create table room_warnings (
  id uuid primary key,
  room_id uuid not null references rooms on delete cascade,
  user_id text not null,
  text text not null,
  by_id text not null,
  by_name text not null,
  created_at timestamptz not null,
  seen_at timestamptz
);
create index room_warnings_by_user on room_warnings (room_id, user_id, created_at desc);
create constraint trigger room_warnings_change_chat after insert on room_warnings deferrable initially deferred
  for each row execute function chat_sanction_has_changed();

create table room_terms (
  room_id uuid primary key references rooms on delete cascade,
  blocked text[] not null,
  allowed text[] not null
);
create constraint trigger room_terms_change_chat after insert or update on room_terms deferrable initially deferred
  for each row execute function chat_rules_have_changed();

create table room_pins (
  room_id uuid primary key references rooms on delete cascade,
  -- Not what it says: that would outlive its deletion.
  mid text not null,
  by_id text not null
);
create constraint trigger room_pins_change_chat after insert or update or delete on room_pins deferrable initially deferred
  for each row execute function chat_rules_have_changed();

create table held_messages (
  room_id uuid not null references rooms on delete cascade,
  mid text not null,
  user_id text not null,
  user_name text not null,
  user_role text not null,
  user_since timestamptz,
  key text not null,
  -- JSON, as text, like the payload of a message.
  body text not null,
  -- What the judge had against it.
  why text not null,
  created_at timestamptz not null,
  decision text check (decision in ('approved', 'denied')),
  decided_by text,
  decided_at timestamptz,
  -- Why it was denied; he who wrote it is told.
  reason text,
  -- Of the entry, once it is in the room.
  "offset" bigint,
  primary key (room_id, mid)
);
create index held_messages_waiting on held_messages (room_id, created_at, mid) where decision is null;
create index held_messages_by_user on held_messages (room_id, user_id);
create index held_messages_by_age on held_messages (created_at);
create constraint trigger held_messages_change_chat after update of decision on held_messages deferrable initially deferred
  for each row when (new.decision = 'denied') execute function chat_sanction_has_changed();

create table room_appeals (
  id uuid primary key,
  room_id uuid not null references rooms on delete cascade,
  -- One for each ban.
  ban_id uuid not null unique references room_bans on delete cascade,
  user_id text not null,
  user_name text not null,
  text text not null,
  created_at timestamptz not null,
  accepted boolean,
  answer text,
  answered_by text,
  answered_at timestamptz
);
create index room_appeals_by_age on room_appeals (room_id, created_at desc, id desc);

-- Who wrote in a room of late, and an HMAC of where from: what a ban by address goes by.
create table room_writers (
  room_id uuid not null references rooms on delete cascade,
  user_id text not null,
  user_name text not null,
  user_role text not null,
  address_hash text,
  seen_at timestamptz not null,
  primary key (room_id, user_id)
);
create index room_writers_by_time on room_writers (seen_at);

-- What was done in a room and by whom, for those who moderate it; the audit log has it as well.
create table room_acts (
  id bigint generated always as identity primary key,
  room_id uuid not null references rooms on delete cascade,
  at timestamptz not null,
  action text not null,
  by_id text not null,
  by_name text not null,
  user_id text,
  details jsonb not null default '{}'
);
create index room_acts_by_room on room_acts (room_id, id desc);
create index room_acts_by_user on room_acts (room_id, user_id, id desc) where user_id is not null;

create table chat_secrets (
  name text primary key,
  sealed_secret bytea not null
);

-- What is decided elsewhere and counts in every room.
create function chat_account_has_changed() returns trigger language plpgsql as $$
begin
  perform chat_has_changed('account', null, null, old.id::text, null);
  return null;
end $$;
create constraint trigger accounts_change_chat after update of banned_at, role, name on accounts deferrable initially deferred
  for each row when ((old.banned_at, old.role, old.name) is distinct from (new.banned_at, new.role, new.name))
  execute function chat_account_has_changed();
create constraint trigger accounts_deleted_change_chat after delete on accounts deferrable initially deferred
  for each row execute function chat_account_has_changed();

-- Accounts whose messages are still to be erased.
create table chat_erasures (
  account_id text primary key,
  at timestamptz not null default now()
);
create function chat_forgets_the_account() returns trigger language plpgsql as $$
begin
  insert into chat_erasures (account_id) values (old.id::text) on conflict do nothing;
  return null;
end $$;
create trigger accounts_deleted_erase_chat after delete on accounts for each row execute function chat_forgets_the_account();

create function chat_session_has_ended() returns trigger language plpgsql as $$
begin
  perform chat_has_changed('session', null, null, null, new.session_id);
  return null;
end $$;
create constraint trigger ended_sessions_change_chat after insert on ended_sessions deferrable initially deferred
  for each row execute function chat_session_has_ended();

create function chat_channel_has_changed() returns trigger language plpgsql as $$
begin
  perform chat_has_changed('channel', (select id from rooms where channel_id = old.id), old.id, null, null);
  return null;
end $$;
create constraint trigger channels_change_chat after update of visibility, owner_id on channels deferrable initially deferred
  for each row when ((old.visibility, old.owner_id) is distinct from (new.visibility, new.owner_id)) execute function chat_channel_has_changed();
create function chat_room_is_deleted() returns trigger language plpgsql as $$
begin
  perform chat_has_changed('channel', old.id, old.channel_id, null, null);
  return null;
end $$;
create constraint trigger rooms_deleted_change_chat after delete on rooms deferrable initially deferred
  for each row execute function chat_room_is_deleted();

create function chat_member_has_changed() returns trigger language plpgsql as $$
begin
  if tg_op = 'DELETE' then perform chat_has_changed('member', null, old.channel_id, old.account_id::text, null);
  else perform chat_has_changed('member', null, new.channel_id, new.account_id::text, null);
  end if;
  return null;
end $$;
create constraint trigger channel_members_change_chat after insert or update or delete on channel_members deferrable initially deferred
  for each row execute function chat_member_has_changed();
`;
