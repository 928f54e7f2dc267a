/**
 * Accounts and their credentials, rights on channels, the audit log, and what is sent to other
 * systems.
 *
 * Columns named `sealed_…` hold values that `access/vault.ts` has sealed. Columns named `…_hash`
 * hold the SHA-256 of a secret with at least 128 random bits, which a slow hash would not protect
 * better. Only passwords are hashed with argon2id.
 */
export const access = `
create table accounts (
  id uuid primary key,
  -- As it was typed, and as it is compared.
  email text not null,
  email_key text not null unique,
  name text not null,
  role text not null default 'listener' check (role in ('listener', 'broadcaster', 'moderator', 'admin')),
  -- Null: this account has none yet (made by the first start, or by an administrator) and is opened by a link.
  password_hash text,
  sealed_totp bytea,
  -- Set when the first code was right: before that the secret counts for nothing.
  totp_confirmed_at timestamptz,
  -- The last time step whose code was taken: a code is good once.
  totp_step bigint,
  -- Null: it waits for the link in the mail, and may not sign in. Where no mail can be sent it is set at once.
  confirmed_at timestamptz,
  banned_at timestamptz,
  ban_reason text,
  created_at timestamptz not null default now()
);
create index accounts_by_age on accounts (created_at desc, id desc);

create table recovery_codes (
  account_id uuid not null references accounts on delete cascade,
  code_hash bytea not null,
  used_at timestamptz,
  primary key (account_id, code_hash)
);

create table passkeys (
  -- The credential id.
  id bytea primary key,
  account_id uuid not null references accounts on delete cascade,
  name text not null,
  public_key bytea not null,
  counter bigint not null,
  transports text[] not null default '{}',
  created_at timestamptz not null default now(),
  last_used_at timestamptz
);
create index passkeys_by_account on passkeys (account_id);

-- Challenges hold their own end, and are written down when they are used: each is good once.
create table used_challenges (
  challenge_hash bytea primary key,
  expires_at timestamptz not null
);

-- One sign-in on one device: a family of refresh tokens, and the \`sid\` of its access tokens.
create table sessions (
  id uuid primary key,
  account_id uuid not null references accounts on delete cascade,
  client text not null,
  address text not null,
  -- How its holder was proven (RFC 8176): pwd, otp, hwk, mfa.
  amr text[] not null,
  created_at timestamptz not null default now(),
  last_used_at timestamptz not null default now(),
  expires_at timestamptz not null,
  ended_at timestamptz
);
create index sessions_by_account on sessions (account_id, created_at desc);
create index sessions_ended on sessions (ended_at) where ended_at is not null;
create index sessions_by_expiry on sessions (expires_at);

-- Tokens of accounts that are deleted or banned must stop working too, and their sessions are gone by then.
create table ended_sessions (
  session_id uuid primary key,
  ended_at timestamptz not null default now()
);
create index ended_sessions_by_time on ended_sessions (ended_at);

create table refresh_tokens (
  token_hash bytea primary key,
  session_id uuid not null references sessions on delete cascade,
  created_at timestamptz not null default now(),
  replaced_at timestamptz,
  -- What it was replaced by, given again to whoever asks again at once (two tabs); emptied after that.
  sealed_successor bytea
);
create index refresh_tokens_by_session on refresh_tokens (session_id);
create index refresh_tokens_replaced on refresh_tokens (replaced_at) where replaced_at is not null;
create index refresh_tokens_sealed on refresh_tokens (replaced_at) where sealed_successor is not null;

-- Of access tokens: published before it signs, kept until the last token it signed has expired.
create table signing_keys (
  kid text primary key,
  public_jwk jsonb not null,
  sealed_private_jwk bytea not null,
  signs_from timestamptz not null,
  signs_until timestamptz not null,
  kept_until timestamptz not null
);

-- Data keys: what seals everything else, sealed themselves by ENCRYPTION_KEY.
create table encryption_keys (
  id int primary key check (id between 1 and 2147483647),
  wrapped bytea not null,
  created_at timestamptz not null default now()
);

create table api_keys (
  id uuid primary key,
  account_id uuid not null references accounts on delete cascade,
  name text not null,
  -- The first letters, so that its owner knows it again.
  hint text not null,
  key_hash bytea not null unique,
  scopes text[] not null,
  -- Made by somebody who had shown a second factor.
  second_factor boolean not null,
  expires_at timestamptz,
  last_used_at timestamptz,
  created_at timestamptz not null default now()
);
create index api_keys_by_account on api_keys (account_id, created_at desc);

alter table channels add column owner_id uuid references accounts on delete set null;
create index channels_by_owner on channels (owner_id);
-- Two letters each (ISO 3166-1). Null: no rule. Not both at once.
alter table channels add column countries_allowed text[];
alter table channels add column countries_denied text[];
alter table channels add constraint channels_one_country_rule check (countries_allowed is null or countries_denied is null);
-- Until then there may be playback links to it, though it is not private: it was, or they were asked for all the same.
alter table channels add column links_until timestamptz;
-- Null: as the channel.
alter table broadcasts add column visibility text check (visibility in ('public', 'unlisted', 'private'));

create table channel_members (
  channel_id uuid not null references channels on delete cascade,
  account_id uuid not null references accounts on delete cascade,
  role text not null check (role in ('host', 'moderator')),
  added_at timestamptz not null default now(),
  primary key (channel_id, account_id)
);
create index channel_members_by_account on channel_members (account_id);

-- What playback links are signed with: two at a time, so that links live through a change. The one with the lower number is the older.
create table playback_keys (
  kid text primary key,
  number bigint generated always as identity,
  sealed_secret bytea not null,
  -- A new one is known everywhere before it signs.
  signs_from timestamptz not null,
  created_at timestamptz not null
);

-- Listeners with a link to a channel, as long as they are there: decides MAX_LISTENERS_PER_STREAM.
create table playback_grants (
  id text primary key,
  -- 'live/{slug}'.
  scope text not null,
  expires_at timestamptz not null,
  last_seen_at timestamptz not null
);
create index playback_grants_by_scope on playback_grants (scope);

-- What was deleted and must not be played on. 'vod/{asset}' until the sweep has deleted its files, with the numbers of its segments, since they
-- have addresses of the channel too. 'live/{slug}' as long as a link to it may be good (MAX_LINK_S): nobody gets the slug before that.
create table playback_closed (
  scope text primary key,
  -- Null: not known, or not of a recording.
  slug text,
  first_number bigint,
  last_number bigint,
  closed_until timestamptz not null
);

-- Rises with everything that decides who may play what. Every process asks for it once a second, and reads again when it has risen.
create table playback_changes (
  one boolean primary key default true check (one),
  version bigint not null
);
insert into playback_changes (version) values (1);
create function playback_has_changed() returns trigger language plpgsql as $$
begin
  update playback_changes set version = version + 1;
  return null;
end $$;
create trigger channels_change_playback after insert or delete or update of visibility, countries_allowed, countries_denied on channels
  for each statement execute function playback_has_changed();
create trigger broadcasts_change_playback after insert or delete or update of visibility, last_number on broadcasts
  for each statement execute function playback_has_changed();
create trigger keys_change_playback after insert or delete on playback_keys
  for each statement execute function playback_has_changed();

create function close_playback_of_broadcast() returns trigger language plpgsql as $$
begin
  insert into playback_closed (scope, slug, first_number, last_number, closed_until)
    select 'vod/' || old.id, (select slug from channels where id = old.channel_id), old.first_number, old.last_number, now() + interval '7 days'
    on conflict do nothing;
  return old;
end $$;
create trigger broadcasts_close_playback before delete on broadcasts for each row execute function close_playback_of_broadcast();
create function close_playback_of_channel() returns trigger language plpgsql as $$
begin
  -- Before they go with it: then nobody knows any more whose they were.
  insert into playback_closed (scope, slug, first_number, last_number, closed_until)
    select 'vod/' || id, old.slug, first_number, last_number, now() + interval '7 days' from broadcasts where channel_id = old.id
    on conflict do nothing;
  insert into playback_closed (scope, closed_until)
    select 'live/' || old.slug, case when old.visibility = 'private' then now() + interval '30 days' else least(old.links_until, now() + interval '30 days') end
    where old.visibility = 'private' or old.links_until > now()
    on conflict (scope) do update set closed_until = excluded.closed_until;
  return old;
end $$;
create trigger channels_close_playback before delete on channels for each row execute function close_playback_of_channel();
create function remember_links_of_channel() returns trigger language plpgsql as $$
begin
  new.links_until := now() + interval '30 days';
  return new;
end $$;
create trigger channels_remember_links before update of visibility on channels for each row
  when (old.visibility = 'private' and new.visibility <> 'private') execute function remember_links_of_channel();
-- After the insert, and not before: who waited for the end of a deletion sees what it left.
create function refuse_slug_of_closed_channel() returns trigger language plpgsql as $$
begin
  delete from playback_closed where scope = 'live/' || new.slug and closed_until <= now();
  if exists (select 1 from playback_closed where scope = 'live/' || new.slug) then
    raise exception 'links to a deleted channel of this slug may be good still'
      using errcode = 'unique_violation', constraint = 'channels_slug_closed';
  end if;
  return null;
end $$;
create trigger channels_refuse_closed_slug after insert on channels for each row execute function refuse_slug_of_closed_channel();

-- One-time links: recovery of a password, the first sign-in, and that an address is one's own.
create table one_time_links (
  token_hash bytea primary key,
  account_id uuid not null references accounts on delete cascade,
  purpose text not null check (purpose in ('recovery', 'invitation', 'confirmation')),
  created_at timestamptz not null,
  expires_at timestamptz not null,
  used_at timestamptz
);
create index one_time_links_by_account on one_time_links (account_id);
create index one_time_links_by_time on one_time_links (expires_at);

create table mail_outbox (
  id bigint generated always as identity primary key,
  -- Whom it is about: what waits goes with the account.
  account_id uuid references accounts on delete cascade,
  -- Holds the links of the mail.
  sealed_message bytea not null,
  attempts int not null default 0,
  next_attempt_at timestamptz not null,
  created_at timestamptz not null
);
create index mail_outbox_due on mail_outbox (next_attempt_at);
create index mail_outbox_by_account on mail_outbox (account_id);

create table audit_log (
  id bigint generated always as identity primary key,
  at timestamptz not null default now(),
  -- 'account:{id}', 'api-key:{id}', 'gateway:{sub}', 'admin-token', 'anonymous', 'system'.
  actor text not null,
  actor_name text,
  address text,
  action text not null,
  target text,
  channel text,
  request_id text,
  details jsonb not null default '{}'
);
create index audit_log_by_actor on audit_log (actor, id desc);
create index audit_log_by_action on audit_log (action, id desc);
create index audit_log_by_target on audit_log (target, id desc);
create index audit_log_by_channel on audit_log (channel, id desc) where channel is not null;
create index audit_log_by_time on audit_log (at);
create function audit_log_is_append_only() returns trigger language plpgsql as $$
begin
  raise exception 'the audit log is append-only';
end $$;
create trigger audit_log_append_only before update or delete or truncate on audit_log
  for each statement execute function audit_log_is_append_only();

create table webhooks (
  id uuid primary key,
  -- Null: of the whole service.
  channel_id uuid references channels on delete cascade,
  url text not null,
  events text[] not null,
  -- JSON: the secret, and for a while the one before.
  sealed_secret bytea not null,
  active boolean not null default true,
  -- Why it was turned off without being asked.
  note text,
  -- Since when nothing was taken; null while things are.
  failing_since timestamptz,
  created_by text not null,
  created_at timestamptz not null default now()
);
create index webhooks_by_channel on webhooks (channel_id);

create table webhook_deliveries (
  -- Made of the event's id and the webhook's: written twice, it is one.
  id uuid primary key,
  webhook_id uuid not null references webhooks on delete cascade,
  sequence bigint generated always as identity,
  -- What has one order_key goes to a webhook in the order of sequence.
  order_key text not null default '',
  event text not null,
  body text not null,
  created_at timestamptz not null,
  -- Counted when it is claimed.
  attempts int not null default 0,
  -- Null: delivered, or given up. Of one that is claimed: when another may claim it, should its process have died.
  next_attempt_at timestamptz,
  delivered_at timestamptz,
  last_status int,
  last_error text
);
create index webhook_deliveries_due on webhook_deliveries (next_attempt_at) where next_attempt_at is not null;
create index webhook_deliveries_pending on webhook_deliveries (webhook_id, sequence) where next_attempt_at is not null;
create index webhook_deliveries_by_webhook on webhook_deliveries (webhook_id, sequence desc);
create index webhook_deliveries_by_age on webhook_deliveries (created_at);
`;
