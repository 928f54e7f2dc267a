-- The tables of Veza, as the migrations in src/backing/database/migrations make them. Written by
--   npm run -s schema
-- and not edited: a test holds it equal to what the migrations give. Why a column is there, the migration says.
-- The owner of a table is the file, or the folder, whose SQL may name it.

-- Owner: src/access/accounts
create table accounts (
  id uuid not null,
  email text not null,
  email_key text not null,
  name text not null,
  role text default 'listener'::text not null,
  password_hash text,
  sealed_totp bytea,
  totp_confirmed_at timestamp with time zone,
  totp_step bigint,
  confirmed_at timestamp with time zone,
  banned_at timestamp with time zone,
  ban_reason text,
  created_at timestamp with time zone default now() not null,
  constraint accounts_pkey PRIMARY KEY (id),
  constraint accounts_email_key_key UNIQUE (email_key),
  constraint accounts_role_check CHECK ((role = ANY (ARRAY['listener'::text, 'broadcaster'::text, 'moderator'::text, 'admin'::text])))
);

-- Owner: src/access/tokens
create table api_keys (
  id uuid not null,
  account_id uuid not null,
  name text not null,
  hint text not null,
  key_hash bytea not null,
  scopes text[] not null,
  second_factor boolean not null,
  expires_at timestamp with time zone,
  last_used_at timestamp with time zone,
  created_at timestamp with time zone default now() not null,
  by_session_alone boolean default false not null,
  by_server boolean default false not null,
  constraint api_keys_pkey PRIMARY KEY (id),
  constraint api_keys_key_hash_key UNIQUE (key_hash)
);

-- Owner: src/access/audit.ts
create table audit_log (
  id bigint generated always as identity,
  at timestamp with time zone default now() not null,
  actor text not null,
  actor_name text,
  address text,
  action text not null,
  target text,
  channel text,
  request_id text,
  details jsonb default '{}'::jsonb not null,
  constraint audit_log_pkey PRIMARY KEY (id)
);

-- Owner: src/library
create table broadcasts (
  id text not null,
  channel_id uuid not null,
  title text not null,
  recording boolean not null,
  started_at timestamp with time zone not null,
  ended_at timestamp with time zone,
  duration_ms bigint,
  first_number bigint not null,
  last_number bigint,
  details jsonb default '{}'::jsonb not null,
  visibility text,
  constraint broadcasts_pkey PRIMARY KEY (id),
  constraint broadcasts_id_check CHECK (((length(id) >= 1) AND (length(id) <= 64))),
  constraint broadcasts_visibility_check CHECK ((visibility = ANY (ARRAY['public'::text, 'unlisted'::text, 'private'::text])))
);

-- Owner: src/access/members.ts
create table channel_members (
  channel_id uuid not null,
  account_id uuid not null,
  role text not null,
  added_at timestamp with time zone default now() not null,
  constraint channel_members_pkey PRIMARY KEY (channel_id, account_id),
  constraint channel_members_role_check CHECK ((role = ANY (ARRAY['host'::text, 'moderator'::text])))
);

-- Owner: src/access/channels.ts
create table channels (
  id uuid not null,
  slug text not null,
  title text not null,
  visibility text not null,
  recording boolean default true not null,
  stream_key_hash bytea not null,
  previous_key_hash bytea,
  created_at timestamp with time zone default now() not null,
  owner_id uuid,
  countries_allowed text[],
  countries_denied text[],
  links_until timestamp with time zone,
  stream_key_by uuid,
  key_voids integer default 0 not null,
  constraint channels_pkey PRIMARY KEY (id),
  constraint channels_previous_key_hash_key UNIQUE (previous_key_hash),
  constraint channels_slug_key UNIQUE (slug),
  constraint channels_stream_key_hash_key UNIQUE (stream_key_hash),
  constraint channels_one_country_rule CHECK (((countries_allowed IS NULL) OR (countries_denied IS NULL))),
  constraint channels_visibility_check CHECK ((visibility = ANY (ARRAY['public'::text, 'unlisted'::text, 'private'::text])))
);

-- Owner: src/chat/protocol
create table chat_change_count (
  one boolean default true not null,
  version bigint not null,
  constraint chat_change_count_pkey PRIMARY KEY (one),
  constraint chat_change_count_one_check CHECK (one)
);

-- Owner: src/chat/protocol
create table chat_changes (
  version bigint not null,
  at timestamp with time zone default now() not null,
  kind text not null,
  room_id uuid,
  channel_id uuid,
  user_id text,
  session_id uuid,
  constraint chat_changes_pkey PRIMARY KEY (version),
  constraint chat_changes_kind_check CHECK ((kind = ANY (ARRAY['rules'::text, 'sanction'::text, 'channel'::text, 'member'::text, 'account'::text, 'session'::text])))
);

-- Owner: src/chat/moderation
create table chat_erasures (
  account_id text not null,
  at timestamp with time zone default now() not null,
  erased_at timestamp with time zone,
  constraint chat_erasures_pkey PRIMARY KEY (account_id)
);

-- Owner: src/chat/rooms
create table chat_secrets (
  name text not null,
  sealed_secret bytea not null,
  constraint chat_secrets_pkey PRIMARY KEY (name)
);

-- Owner: src/access/vault.ts
create table encryption_keys (
  id integer not null,
  wrapped bytea not null,
  created_at timestamp with time zone default now() not null,
  constraint encryption_keys_pkey PRIMARY KEY (id),
  constraint encryption_keys_id_check CHECK (((id >= 1) AND (id <= 2147483647)))
);

-- Owner: src/access/playback
create table ended_playback_links (
  number bigint generated always as identity,
  account_id uuid not null,
  what text not null,
  slug text,
  except_slugs text[] default '{}'::text[] not null,
  ended_at timestamp with time zone not null,
  kept_until timestamp with time zone not null,
  constraint ended_playback_links_pkey PRIMARY KEY (number)
);

-- Owner: src/access/tokens
create table ended_sessions (
  session_id uuid not null,
  ended_at timestamp with time zone default now() not null,
  constraint ended_sessions_pkey PRIMARY KEY (session_id)
);

-- Owner: src/chat/moderation
create table held_messages (
  room_id uuid not null,
  mid text not null,
  user_id text not null,
  user_name text not null,
  user_role text not null,
  user_since timestamp with time zone,
  key text not null,
  body text not null,
  why text not null,
  created_at timestamp with time zone not null,
  decision text,
  decided_by text,
  decided_at timestamp with time zone,
  reason text,
  "offset" bigint,
  constraint held_messages_pkey PRIMARY KEY (room_id, mid),
  constraint held_messages_decision_check CHECK ((decision = ANY (ARRAY['approved'::text, 'denied'::text])))
);

-- Owner: src/access/accounts
create table mail_outbox (
  id bigint generated always as identity,
  account_id uuid,
  sealed_message bytea not null,
  attempts integer default 0 not null,
  next_attempt_at timestamp with time zone not null,
  created_at timestamp with time zone not null,
  constraint mail_outbox_pkey PRIMARY KEY (id)
);

-- Owner: src/chat/rooms
create table messages (
  room_id uuid not null,
  "offset" bigint not null,
  epoch bigint not null,
  type text not null,
  mid text,
  key text,
  user_id text,
  payload text not null,
  sent_at timestamp with time zone,
  created_at timestamp with time zone not null,
  deleted_at timestamp with time zone,
  constraint messages_pkey PRIMARY KEY (room_id, "offset")
);

-- Owner: src/chat/rooms
create table now_playing (
  channel_id uuid not null,
  title_id text not null,
  broadcast_id text not null,
  title text not null,
  artist text,
  started_at timestamp with time zone not null,
  told_id text,
  told_broadcast_id text,
  told_title text,
  told_artist text,
  told_at timestamp with time zone,
  claimed_until timestamp with time zone,
  constraint now_playing_pkey PRIMARY KEY (channel_id)
);

-- Owner: src/access/accounts
create table one_time_links (
  token_hash bytea not null,
  account_id uuid not null,
  purpose text not null,
  created_at timestamp with time zone not null,
  expires_at timestamp with time zone not null,
  used_at timestamp with time zone,
  made_by uuid,
  constraint one_time_links_pkey PRIMARY KEY (token_hash),
  constraint one_time_links_purpose_check CHECK ((purpose = ANY (ARRAY['recovery'::text, 'invitation'::text, 'confirmation'::text])))
);

-- Owner: src/access/second-factor
create table passkeys (
  id bytea not null,
  account_id uuid not null,
  name text not null,
  public_key bytea not null,
  counter bigint not null,
  transports text[] default '{}'::text[] not null,
  created_at timestamp with time zone default now() not null,
  last_used_at timestamp with time zone,
  constraint passkeys_pkey PRIMARY KEY (id)
);

-- Owner: src/access/playback
create table playback_changes (
  one boolean default true not null,
  version bigint not null,
  constraint playback_changes_pkey PRIMARY KEY (one),
  constraint playback_changes_one_check CHECK (one)
);

-- Owner: src/access/playback
create table playback_closed (
  scope text not null,
  slug text,
  first_number bigint,
  last_number bigint,
  closed_until timestamp with time zone not null,
  constraint playback_closed_pkey PRIMARY KEY (scope)
);

-- Owner: src/access/playback
create table playback_grants (
  id text not null,
  scope text not null,
  expires_at timestamp with time zone not null,
  last_seen_at timestamp with time zone not null,
  constraint playback_grants_pkey PRIMARY KEY (id)
);

-- Owner: src/access/playback
create table playback_keys (
  kid text not null,
  number bigint generated always as identity,
  sealed_secret bytea not null,
  signs_from timestamp with time zone not null,
  created_at timestamp with time zone not null,
  constraint playback_keys_pkey PRIMARY KEY (kid)
);

-- Owner: src/chat/rooms
create table reaction_counts (
  room_id uuid not null,
  mid text not null,
  counts jsonb not null,
  changed_at timestamp with time zone not null,
  constraint reaction_counts_pkey PRIMARY KEY (room_id, mid)
);

-- Owner: src/chat/rooms
create table reactions (
  room_id uuid not null,
  mid text not null,
  emoji text not null,
  user_id text not null,
  constraint reactions_pkey PRIMARY KEY (room_id, mid, emoji, user_id)
);

-- Owner: src/access/second-factor
create table recovery_codes (
  account_id uuid not null,
  code_hash bytea not null,
  used_at timestamp with time zone,
  constraint recovery_codes_pkey PRIMARY KEY (account_id, code_hash)
);

-- Owner: src/access/tokens
create table refresh_tokens (
  token_hash bytea not null,
  session_id uuid not null,
  created_at timestamp with time zone default now() not null,
  replaced_at timestamp with time zone,
  sealed_successor bytea,
  constraint refresh_tokens_pkey PRIMARY KEY (token_hash)
);

-- Owner: src/chat/moderation
create table room_acts (
  id bigint generated always as identity,
  room_id uuid not null,
  at timestamp with time zone not null,
  action text not null,
  by_id text not null,
  by_name text not null,
  user_id text,
  details jsonb default '{}'::jsonb not null,
  constraint room_acts_pkey PRIMARY KEY (id)
);

-- Owner: src/chat/moderation
create table room_address_bans (
  room_id uuid not null,
  address_hash text not null,
  ban_id uuid not null,
  until timestamp with time zone not null,
  constraint room_address_bans_pkey PRIMARY KEY (room_id, address_hash)
);

-- Owner: src/chat/moderation
create table room_appeals (
  id uuid not null,
  room_id uuid not null,
  ban_id uuid not null,
  user_id text not null,
  user_name text not null,
  text text not null,
  created_at timestamp with time zone not null,
  accepted boolean,
  answer text,
  answered_by text,
  answered_at timestamp with time zone,
  constraint room_appeals_pkey PRIMARY KEY (id),
  constraint room_appeals_ban_id_key UNIQUE (ban_id)
);

-- Owner: src/chat/moderation
create table room_bans (
  id uuid not null,
  room_id uuid not null,
  user_id text not null,
  user_name text not null,
  shadow boolean not null,
  reason text,
  by_id text not null,
  by_name text not null,
  created_at timestamp with time zone not null,
  until timestamp with time zone,
  lifted_at timestamp with time zone,
  constraint room_bans_pkey PRIMARY KEY (id)
);

-- Owner: src/chat/rooms
create table room_epochs (
  room_id uuid not null,
  epoch bigint not null,
  keep bigint not null,
  opened_at timestamp with time zone default now() not null,
  constraint room_epochs_pkey PRIMARY KEY (room_id, epoch)
);

-- Owner: src/chat/rooms
create table room_pins (
  room_id uuid not null,
  mid text not null,
  by_id text not null,
  constraint room_pins_pkey PRIMARY KEY (room_id)
);

-- Owner: src/chat/moderation
create table room_terms (
  room_id uuid not null,
  blocked text[] not null,
  allowed text[] not null,
  constraint room_terms_pkey PRIMARY KEY (room_id)
);

-- Owner: src/chat/moderation
create table room_timeouts (
  room_id uuid not null,
  user_id text not null,
  user_name text not null,
  reason text,
  by_id text not null,
  by_name text not null,
  created_at timestamp with time zone not null,
  until timestamp with time zone not null,
  constraint room_timeouts_pkey PRIMARY KEY (room_id, user_id)
);

-- Owner: src/chat/moderation
create table room_warnings (
  id uuid not null,
  room_id uuid not null,
  user_id text not null,
  text text not null,
  by_id text not null,
  by_name text not null,
  created_at timestamp with time zone not null,
  seen_at timestamp with time zone,
  constraint room_warnings_pkey PRIMARY KEY (id)
);

-- Owner: src/chat/moderation
create table room_writers (
  room_id uuid not null,
  user_id text not null,
  user_name text not null,
  user_role text not null,
  address_hash text,
  seen_at timestamp with time zone not null,
  constraint room_writers_pkey PRIMARY KEY (room_id, user_id)
);

-- Owner: src/chat/rooms
create table rooms (
  id uuid not null,
  channel_id uuid,
  epoch bigint default 0 not null,
  floor bigint default 0 not null,
  whole bigint default 0 not null,
  settings jsonb default '{}'::jsonb not null,
  created_at timestamp with time zone default now() not null,
  swept bigint default 0 not null,
  constraint rooms_pkey PRIMARY KEY (id),
  constraint rooms_channel_id_key UNIQUE (channel_id)
);

-- Owner: src/backing/database
create table schema_migrations (
  name text not null,
  applied_at timestamp with time zone default now() not null,
  constraint schema_migrations_pkey PRIMARY KEY (name)
);

-- Owner: src/access/tokens
create table sessions (
  id uuid not null,
  account_id uuid not null,
  client text not null,
  address text not null,
  amr text[] not null,
  created_at timestamp with time zone default now() not null,
  last_used_at timestamp with time zone default now() not null,
  expires_at timestamp with time zone not null,
  ended_at timestamp with time zone,
  proven_at timestamp with time zone,
  constraint sessions_pkey PRIMARY KEY (id)
);

-- Owner: src/access/tokens
create table signing_keys (
  kid text not null,
  public_jwk jsonb not null,
  sealed_private_jwk bytea not null,
  signs_from timestamp with time zone not null,
  signs_until timestamp with time zone not null,
  kept_until timestamp with time zone not null,
  constraint signing_keys_pkey PRIMARY KEY (kid)
);

-- Owner: src/access/second-factor
create table used_challenges (
  challenge_hash bytea not null,
  expires_at timestamp with time zone not null,
  constraint used_challenges_pkey PRIMARY KEY (challenge_hash)
);

-- Owner: src/access/webhooks
create table webhook_deliveries (
  id uuid not null,
  webhook_id uuid not null,
  sequence bigint generated always as identity,
  order_key text default ''::text not null,
  event text not null,
  body text not null,
  created_at timestamp with time zone not null,
  attempts integer default 0 not null,
  next_attempt_at timestamp with time zone,
  delivered_at timestamp with time zone,
  last_status integer,
  last_error text,
  constraint webhook_deliveries_pkey PRIMARY KEY (id)
);

-- Owner: src/access/webhooks
create table webhooks (
  id uuid not null,
  channel_id uuid,
  url text not null,
  events text[] not null,
  sealed_secret bytea not null,
  active boolean default true not null,
  note text,
  failing_since timestamp with time zone,
  created_by text not null,
  created_at timestamp with time zone default now() not null,
  maker_id uuid,
  constraint webhooks_pkey PRIMARY KEY (id)
);

-- Indexes

CREATE INDEX accounts_by_age ON public.accounts USING btree (created_at DESC, id DESC);
CREATE INDEX api_keys_by_account ON public.api_keys USING btree (account_id, created_at DESC);
CREATE INDEX audit_log_by_action ON public.audit_log USING btree (action, id DESC);
CREATE INDEX audit_log_by_actor ON public.audit_log USING btree (actor, id DESC);
CREATE INDEX audit_log_by_channel ON public.audit_log USING btree (channel, id DESC) WHERE (channel IS NOT NULL);
CREATE INDEX audit_log_by_target ON public.audit_log USING btree (target, id DESC);
CREATE INDEX audit_log_by_time ON public.audit_log USING btree (at);
CREATE INDEX broadcasts_by_channel ON public.broadcasts USING btree (channel_id, started_at DESC, id DESC);
CREATE INDEX broadcasts_by_start ON public.broadcasts USING btree (started_at DESC, id DESC);
CREATE INDEX broadcasts_unfinished ON public.broadcasts USING btree (id) WHERE (ended_at IS NULL);
CREATE INDEX channel_members_by_account ON public.channel_members USING btree (account_id);
CREATE INDEX channels_by_key_maker ON public.channels USING btree (stream_key_by);
CREATE INDEX channels_by_owner ON public.channels USING btree (owner_id);
CREATE INDEX chat_changes_by_time ON public.chat_changes USING btree (at);
CREATE UNIQUE INDEX ended_playback_links_by_channel ON public.ended_playback_links USING btree (account_id, what, slug) WHERE (slug IS NOT NULL);
CREATE INDEX ended_playback_links_by_end ON public.ended_playback_links USING btree (kept_until);
CREATE INDEX ended_sessions_by_time ON public.ended_sessions USING btree (ended_at);
CREATE INDEX held_messages_by_age ON public.held_messages USING btree (created_at);
CREATE INDEX held_messages_by_user ON public.held_messages USING btree (room_id, user_id);
CREATE INDEX held_messages_waiting ON public.held_messages USING btree (room_id, created_at, mid) WHERE (decision IS NULL);
CREATE INDEX mail_outbox_by_account ON public.mail_outbox USING btree (account_id);
CREATE INDEX mail_outbox_due ON public.mail_outbox USING btree (next_attempt_at);
CREATE UNIQUE INDEX messages_by_mid ON public.messages USING btree (room_id, mid) WHERE (mid IS NOT NULL);
CREATE INDEX messages_by_user ON public.messages USING btree (user_id, room_id, "offset") WHERE (user_id IS NOT NULL);
CREATE INDEX messages_recent ON public.messages USING btree (room_id, created_at DESC) WHERE (deleted_at IS NULL);
CREATE INDEX now_playing_untold ON public.now_playing USING btree (started_at) WHERE (told_id IS DISTINCT FROM title_id);
CREATE INDEX one_time_links_by_account ON public.one_time_links USING btree (account_id);
CREATE INDEX one_time_links_by_maker ON public.one_time_links USING btree (made_by) WHERE (made_by IS NOT NULL);
CREATE INDEX one_time_links_by_time ON public.one_time_links USING btree (expires_at);
CREATE INDEX passkeys_by_account ON public.passkeys USING btree (account_id);
CREATE INDEX playback_grants_by_scope ON public.playback_grants USING btree (scope);
CREATE INDEX reaction_counts_by_change ON public.reaction_counts USING btree (changed_at);
CREATE INDEX reactions_by_user ON public.reactions USING btree (user_id);
CREATE INDEX refresh_tokens_by_session ON public.refresh_tokens USING btree (session_id);
CREATE INDEX refresh_tokens_replaced ON public.refresh_tokens USING btree (replaced_at) WHERE (replaced_at IS NOT NULL);
CREATE INDEX refresh_tokens_sealed ON public.refresh_tokens USING btree (replaced_at) WHERE (sealed_successor IS NOT NULL);
CREATE INDEX room_acts_by_room ON public.room_acts USING btree (room_id, id DESC);
CREATE INDEX room_acts_by_user ON public.room_acts USING btree (room_id, user_id, id DESC) WHERE (user_id IS NOT NULL);
CREATE INDEX room_address_bans_by_ban ON public.room_address_bans USING btree (ban_id);
CREATE INDEX room_address_bans_by_end ON public.room_address_bans USING btree (until);
CREATE INDEX room_appeals_by_age ON public.room_appeals USING btree (room_id, created_at DESC, id DESC);
CREATE INDEX room_bans_by_age ON public.room_bans USING btree (room_id, created_at DESC, id DESC) WHERE (lifted_at IS NULL);
CREATE INDEX room_bans_by_end ON public.room_bans USING btree (until) WHERE (lifted_at IS NULL);
CREATE UNIQUE INDEX room_bans_in_force ON public.room_bans USING btree (room_id, user_id) WHERE (lifted_at IS NULL);
CREATE INDEX room_timeouts_by_end ON public.room_timeouts USING btree (until);
CREATE INDEX room_warnings_by_user ON public.room_warnings USING btree (room_id, user_id, created_at DESC);
CREATE INDEX room_writers_by_time ON public.room_writers USING btree (seen_at);
CREATE INDEX sessions_by_account ON public.sessions USING btree (account_id, created_at DESC);
CREATE INDEX sessions_by_expiry ON public.sessions USING btree (expires_at);
CREATE INDEX sessions_ended ON public.sessions USING btree (ended_at) WHERE (ended_at IS NOT NULL);
CREATE INDEX webhook_deliveries_by_age ON public.webhook_deliveries USING btree (created_at);
CREATE INDEX webhook_deliveries_by_webhook ON public.webhook_deliveries USING btree (webhook_id, sequence DESC);
CREATE INDEX webhook_deliveries_due ON public.webhook_deliveries USING btree (next_attempt_at) WHERE (next_attempt_at IS NOT NULL);
CREATE INDEX webhook_deliveries_pending ON public.webhook_deliveries USING btree (webhook_id, sequence) WHERE (next_attempt_at IS NOT NULL);
CREATE INDEX webhooks_by_channel ON public.webhooks USING btree (channel_id);
CREATE INDEX webhooks_by_maker ON public.webhooks USING btree (maker_id);

-- Foreign keys

alter table api_keys add constraint api_keys_account_id_fkey FOREIGN KEY (account_id) REFERENCES accounts(id) ON DELETE CASCADE;
alter table broadcasts add constraint broadcasts_channel_id_fkey FOREIGN KEY (channel_id) REFERENCES channels(id) ON DELETE CASCADE;
alter table channel_members add constraint channel_members_account_id_fkey FOREIGN KEY (account_id) REFERENCES accounts(id) ON DELETE CASCADE;
alter table channel_members add constraint channel_members_channel_id_fkey FOREIGN KEY (channel_id) REFERENCES channels(id) ON DELETE CASCADE;
alter table channels add constraint channels_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES accounts(id) ON DELETE SET NULL;
alter table held_messages add constraint held_messages_room_id_fkey FOREIGN KEY (room_id) REFERENCES rooms(id) ON DELETE CASCADE;
alter table mail_outbox add constraint mail_outbox_account_id_fkey FOREIGN KEY (account_id) REFERENCES accounts(id) ON DELETE CASCADE;
alter table now_playing add constraint now_playing_channel_id_fkey FOREIGN KEY (channel_id) REFERENCES channels(id) ON DELETE CASCADE;
alter table one_time_links add constraint one_time_links_account_id_fkey FOREIGN KEY (account_id) REFERENCES accounts(id) ON DELETE CASCADE;
alter table passkeys add constraint passkeys_account_id_fkey FOREIGN KEY (account_id) REFERENCES accounts(id) ON DELETE CASCADE;
alter table reaction_counts add constraint reaction_counts_room_id_fkey FOREIGN KEY (room_id) REFERENCES rooms(id) ON DELETE CASCADE;
alter table reactions add constraint reactions_room_id_fkey FOREIGN KEY (room_id) REFERENCES rooms(id) ON DELETE CASCADE;
alter table recovery_codes add constraint recovery_codes_account_id_fkey FOREIGN KEY (account_id) REFERENCES accounts(id) ON DELETE CASCADE;
alter table refresh_tokens add constraint refresh_tokens_session_id_fkey FOREIGN KEY (session_id) REFERENCES sessions(id) ON DELETE CASCADE;
alter table room_acts add constraint room_acts_room_id_fkey FOREIGN KEY (room_id) REFERENCES rooms(id) ON DELETE CASCADE;
alter table room_address_bans add constraint room_address_bans_ban_id_fkey FOREIGN KEY (ban_id) REFERENCES room_bans(id) ON DELETE CASCADE;
alter table room_address_bans add constraint room_address_bans_room_id_fkey FOREIGN KEY (room_id) REFERENCES rooms(id) ON DELETE CASCADE;
alter table room_appeals add constraint room_appeals_ban_id_fkey FOREIGN KEY (ban_id) REFERENCES room_bans(id) ON DELETE CASCADE;
alter table room_appeals add constraint room_appeals_room_id_fkey FOREIGN KEY (room_id) REFERENCES rooms(id) ON DELETE CASCADE;
alter table room_bans add constraint room_bans_room_id_fkey FOREIGN KEY (room_id) REFERENCES rooms(id) ON DELETE CASCADE;
alter table room_epochs add constraint room_epochs_room_id_fkey FOREIGN KEY (room_id) REFERENCES rooms(id) ON DELETE CASCADE;
alter table room_pins add constraint room_pins_room_id_fkey FOREIGN KEY (room_id) REFERENCES rooms(id) ON DELETE CASCADE;
alter table room_terms add constraint room_terms_room_id_fkey FOREIGN KEY (room_id) REFERENCES rooms(id) ON DELETE CASCADE;
alter table room_timeouts add constraint room_timeouts_room_id_fkey FOREIGN KEY (room_id) REFERENCES rooms(id) ON DELETE CASCADE;
alter table room_warnings add constraint room_warnings_room_id_fkey FOREIGN KEY (room_id) REFERENCES rooms(id) ON DELETE CASCADE;
alter table room_writers add constraint room_writers_room_id_fkey FOREIGN KEY (room_id) REFERENCES rooms(id) ON DELETE CASCADE;
alter table rooms add constraint rooms_channel_id_fkey FOREIGN KEY (channel_id) REFERENCES channels(id) ON DELETE CASCADE;
alter table sessions add constraint sessions_account_id_fkey FOREIGN KEY (account_id) REFERENCES accounts(id) ON DELETE CASCADE;
alter table webhook_deliveries add constraint webhook_deliveries_webhook_id_fkey FOREIGN KEY (webhook_id) REFERENCES webhooks(id) ON DELETE CASCADE;
alter table webhooks add constraint webhooks_channel_id_fkey FOREIGN KEY (channel_id) REFERENCES channels(id) ON DELETE CASCADE;

-- Functions

set check_function_bodies = off;

CREATE OR REPLACE FUNCTION public.account_goes()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  perform void_keys_known_to(old.id);
  update webhooks set active = false, note = 'the account that set it up is deleted' where maker_id = old.id and active;
  return old;
end $function$;

CREATE OR REPLACE FUNCTION public.account_lost_factor()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  perform factor_lost(new.id);
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.account_lost_links()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  if tg_op = 'DELETE' then
    perform end_links_of(old.id, 'links', null, '{}');
    perform end_links_of(old.id, 'play', null, '{}');
    delete from one_time_links where made_by = old.id and used_at is null;
    return null;
  end if;
  if new.banned_at is not null and old.banned_at is null then
    perform end_links_of(new.id, 'links', null, '{}');
    perform end_links_of(new.id, 'play', null, '{}');
  elsif new.role is distinct from old.role then
    perform end_links_by_service_role(new.id, old.role = 'admin' and new.role <> 'admin',
      old.role in ('admin', 'moderator') and new.role not in ('admin', 'moderator'));
  end if;
  if new.role <> 'admin' or new.banned_at is not null then
    delete from one_time_links where made_by = new.id and used_at is null;
  end if;
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.account_lost_rights()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  if new.banned_at is not null and old.banned_at is null then
    perform void_keys_known_to(new.id);
  end if;
  perform end_what_was_made_by(new.id);
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.audit_log_is_append_only()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  raise exception 'the audit log is append-only';
end $function$;

CREATE OR REPLACE FUNCTION public.channel_has_a_room()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  insert into rooms (id, channel_id) values (gen_random_uuid(), new.id);
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.chat_account_has_changed()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  perform chat_has_changed('account', null, null, old.id::text, null);
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.chat_archive(in_rooms uuid[], in_epochs bigint[], in_offsets bigint[], in_types text[], in_mids text[], in_keys text[], in_users text[], in_payloads text[], in_sent timestamp with time zone[], in_ats timestamp with time zone[], erase_rooms uuid[], erase_epochs bigint[], erase_offsets bigint[], erase_ats timestamp with time zone[], wipe_rooms uuid[], wipe_epochs bigint[], wipe_users text[], wipe_offsets bigint[], wipe_ats timestamp with time zone[])
 RETURNS TABLE(n integer, outcome text, other bigint)
 LANGUAGE plpgsql
AS $function$
#variable_conflict use_column
begin
  perform 1 from rooms where id = any(in_rooms) order by id for share;
  return query
  with given as (
    select e.* from unnest(in_rooms, in_epochs, in_offsets, in_types, in_mids, in_keys, in_users, in_payloads, in_sent, in_ats)
      with ordinality as e(room_id, epoch, "offset", type, mid, key, user_id, payload, sent_at, at, n)
  ), known as (
    select g.n, m."offset" from given g join messages m on m.room_id = g.room_id and m.mid = g.mid where m."offset" <> g."offset"
  ), stored as (
    insert into messages (room_id, "offset", epoch, type, mid, key, user_id, payload, sent_at, created_at, deleted_at)
    select g.room_id, g."offset", g.epoch,
      case when k.n is null then g.type else 'gone' end,
      case when k.n is null then g.mid end,
      case when k.n is null then g.key end,
      case when k.n is null then g.user_id end,
      case when k.n is null then g.payload else '{}' end,
      g.sent_at, g.at,
      case when k.n is null and g.type <> 'gone' then null else g.at end
    from given g join rooms r on r.id = g.room_id and r.epoch = g.epoch left join known k on k.n = g.n
    order by g.room_id, g."offset"
    on conflict do nothing
    returning room_id, "offset", epoch, type, mid, payload
  ), found as (
    -- The place of an entry is a room, an offset and an epoch, and in it stands this very entry or another.
    select g.n, g.epoch, r.epoch as room_epoch, k.n as known_n, k."offset" as known_offset, m."offset" as before_offset,
      m.epoch as before_epoch, s."offset" as stored_offset,
      coalesce(m.epoch = g.epoch and (m.type = 'gone' or (m.mid is not distinct from g.mid and (m.mid is not null or m.payload = g.payload))), false)
        as was_there,
      coalesce(s.mid is not distinct from g.mid and s.type = g.type and (s.mid is not null or s.payload = g.payload), false) as is_stored
    from given g
      left join rooms r on r.id = g.room_id
      left join known k on k.n = g.n
      left join stored s on s.room_id = g.room_id and s."offset" = g."offset" and s.epoch = g.epoch
      left join messages m on m.room_id = g.room_id and m."offset" = g."offset"
  )
  select f.n::int,
    case when f.room_epoch is distinct from f.epoch then 'fenced'
      when f.known_n is not null and (f.stored_offset is not null or f.before_epoch = f.epoch) then 'known'
      when f.before_offset is not null then case when f.was_there then 'stored' else 'fenced' end
      when f.stored_offset is not null then 'fenced'
      else 'again' end,
    f.known_offset
  from found f
  where not (f.is_stored and f.known_n is null);

  if cardinality(erase_offsets) > 0 or cardinality(wipe_offsets) > 0 then
    -- In one order, as reactions do: whoever reacts to one of these has reacted before this, or finds that it is gone.
    perform 1 from messages m join (
        select e.room_id, e."offset" from unnest(erase_rooms, erase_offsets) e(room_id, "offset")
        union
        select x.room_id, x."offset" from unnest(wipe_rooms, wipe_users, wipe_offsets) w(room_id, user_id, "offset")
          join messages x on x.room_id = w.room_id and x.user_id = w.user_id and x."offset" <= w."offset"
      ) t on m.room_id = t.room_id and m."offset" = t."offset"
      where m.type in ('msg', 'shadow') order by m.room_id, m.mid for no key update of m;
  end if;
  if cardinality(erase_offsets) > 0 then
    -- What is not there yet, as another process is about to store it, is taken up by 'gone' before it comes. Below the floor: what is kept there.
    insert into messages (room_id, "offset", epoch, type, payload, created_at, deleted_at)
    select distinct on (e.room_id, e."offset") e.room_id, e."offset", e.epoch, 'gone', '{}',
      coalesce((select m.created_at from messages m where m.room_id = e.room_id and m."offset" < e."offset" order by m."offset" desc limit 1), e.at), e.at
    from unnest(erase_rooms, erase_epochs, erase_offsets, erase_ats) e(room_id, epoch, "offset", at)
      join rooms r on r.id = e.room_id and r.epoch = e.epoch
    where r.floor < e."offset" or exists (select from messages m where m.room_id = e.room_id and m."offset" = e."offset")
    order by e.room_id, e."offset"
    on conflict (room_id, "offset") do update
      set type = 'gone', payload = '{}', key = null, user_id = null, deleted_at = excluded.deleted_at
      where messages.type in ('msg', 'shadow');
  end if;
  if cardinality(wipe_offsets) > 0 then
    update messages m set type = 'gone', payload = '{}', key = null, user_id = null, deleted_at = w.at
    from unnest(wipe_rooms, wipe_epochs, wipe_users, wipe_offsets, wipe_ats) w(room_id, epoch, user_id, "offset", at)
      join rooms r on r.id = w.room_id and r.epoch = w.epoch
    where m.room_id = w.room_id and m.user_id = w.user_id and m."offset" <= w."offset" and m.type in ('msg', 'shadow');
  end if;
end $function$;

CREATE OR REPLACE FUNCTION public.chat_channel_has_changed()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  perform chat_has_changed('channel', (select id from rooms where channel_id = old.id), old.id, null, null);
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.chat_count_reactions(in_rooms uuid[], in_mids text[])
 RETURNS TABLE(room_id uuid, mid text, counts jsonb)
 LANGUAGE plpgsql
AS $function$
#variable_conflict use_column
begin
  return query
  update reaction_counts c set changed_at = now(), counts = coalesce(
      (select jsonb_object_agg(x.emoji, x.n) from
        (select x.emoji, count(*) as n from reactions x where x.room_id = c.room_id and x.mid = c.mid group by x.emoji) x), '{}')
  from unnest(in_rooms, in_mids) t(room_id, mid)
  where c.room_id = t.room_id and c.mid = t.mid
  returning c.room_id, c.mid, c.counts;
end $function$;

CREATE OR REPLACE FUNCTION public.chat_drop_reactions()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  if tg_op = 'UPDATE' then
    delete from reaction_counts c using changed m where m.type = 'gone' and c.room_id = m.room_id and c.mid = m.mid;
    delete from reactions x using changed m where m.type = 'gone' and x.room_id = m.room_id and x.mid = m.mid;
  else
    delete from reaction_counts c using changed m where c.room_id = m.room_id and c.mid = m.mid;
    delete from reactions x using changed m where x.room_id = m.room_id and x.mid = m.mid;
  end if;
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.chat_erase_reactions(in_user text)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
declare
  its_rooms uuid[];
  its_mids text[];
begin
  select array_agg(t.room_id), array_agg(t.mid) into its_rooms, its_mids from (
    select c.room_id, c.mid from reaction_counts c join (select distinct x.room_id, x.mid from reactions x where x.user_id = in_user) x
      on c.room_id = x.room_id and c.mid = x.mid
    order by c.room_id, c.mid for no key update of c) t;
  delete from reactions where user_id = in_user;
  perform chat_count_reactions(its_rooms, its_mids);
end $function$;

CREATE OR REPLACE FUNCTION public.chat_forgets_the_account()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  insert into chat_erasures (account_id) values (old.id::text) on conflict do nothing;
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.chat_has_changed(kind text, room_id uuid, channel_id uuid, user_id text, session_id uuid)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
declare next bigint;
begin
  update chat_change_count set version = version + 1 returning version into next;
  insert into chat_changes (version, kind, room_id, channel_id, user_id, session_id) values (next, kind, room_id, channel_id, user_id, session_id);
end $function$;

CREATE OR REPLACE FUNCTION public.chat_hold(in_room uuid, in_mid text, in_user text, in_name text, in_role text, in_since timestamp with time zone, in_key text, in_body text, in_why text, in_at timestamp with time zone, in_now timestamp with time zone, in_most integer, in_instead_of text)
 RETURNS TABLE(outcome text, reason text, other bigint)
 LANGUAGE plpgsql
AS $function$
#variable_conflict use_column
declare
  known held_messages%rowtype;
begin
  perform 1 from rooms where id = in_room for share;
  if not found then
    return query select 'gone', null::text, null::bigint;
    return;
  end if;
  if in_instead_of is not null then
    -- It stays until this is committed, and what deletes it then finds what is held instead.
    perform 1 from messages m where m.room_id = in_room and m.mid = in_instead_of and m.type in ('msg', 'shadow') for share;
    if not found then
      return query select 'gone', null::text, null::bigint;
      return;
    end if;
  elsif exists (select from room_bans b where b.room_id = in_room and b.user_id = in_user and b.lifted_at is null and not b.shadow
      and (b.until is null or b.until > in_now)) or exists (select from chat_erasures e where e.account_id = in_user) then
    return query select 'banned', null::text, null::bigint;
    return;
  elsif exists (select from room_timeouts t where t.room_id = in_room and t.user_id = in_user and t.until > in_now) then
    return query select 'timed_out', null::text, null::bigint;
    return;
  end if;
  select * into known from held_messages h where h.room_id = in_room and h.mid = in_mid;
  if found then
    return query select coalesce(known.decision, 'waiting'), known.reason, known."offset";
    return;
  end if;
  if (select count(*) from held_messages h where h.room_id = in_room and h.decision is null) >= in_most then
    return query select 'full', null::text, null::bigint;
    return;
  end if;
  insert into held_messages (room_id, mid, user_id, user_name, user_role, user_since, key, body, why, created_at)
  values (in_room, in_mid, in_user, in_name, in_role, in_since, in_key, in_body, in_why, in_at)
  on conflict (room_id, mid) do nothing;
  return query select 'held', null::text, null::bigint;
end $function$;

CREATE OR REPLACE FUNCTION public.chat_keeps_less()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  if tg_table_name = 'broadcasts' then update rooms set swept = 0 where channel_id = old.channel_id and swept > 0;
  else update rooms set swept = 0 where id = old.room_id and swept > 0;
  end if;
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.chat_member_has_changed()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  if tg_op = 'DELETE' then perform chat_has_changed('member', null, old.channel_id, old.account_id::text, null);
  else perform chat_has_changed('member', null, new.channel_id, new.account_id::text, null);
  end if;
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.chat_pin_is_erased()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  if exists (select from room_pins p where p.room_id = new.room_id and p.mid = new.mid) then
    perform chat_has_changed('rules', new.room_id, null, null, null);
  end if;
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.chat_raise_epoch(in_room uuid, in_expected bigint, in_above bigint DEFAULT 0)
 RETURNS TABLE(epoch bigint, head bigint, keep bigint)
 LANGUAGE plpgsql
AS $function$
#variable_conflict use_column
declare
  base bigint;
  top bigint;
  kept bigint;
  raised bigint := greatest(in_expected + 1, in_above + 1,
    floor(extract(epoch from clock_timestamp()) * 1000)::bigint * 1024 + floor(random() * 1024)::bigint);
begin
  update rooms r set epoch = raised where r.id = in_room and r.epoch = in_expected returning greatest(r.floor, r.whole) into base;
  if not found then return; end if;
  select coalesce(max(m."offset"), base) into top from messages m where m.room_id = in_room and m."offset" > base;
  -- Above the first hole every offset is more than its number.
  select base + count(*) into kept
    from (select m."offset", row_number() over (order by m."offset") as rank from messages m where m.room_id = in_room and m."offset" > base) x
    where x."offset" = base + x.rank;
  if kept < top then
    insert into messages (room_id, "offset", epoch, type, payload, created_at, deleted_at)
    select in_room, o, raised, 'gone', '{}', coalesce(
        (select m.created_at from messages m where m.room_id = in_room and m."offset" < o order by m."offset" desc limit 1),
        (select m.created_at from messages m where m.room_id = in_room and m."offset" > o order by m."offset" limit 1)
      ), now()
    from generate_series(kept + 1, top) o
    on conflict do nothing;
  end if;
  update rooms set whole = top where id = in_room;
  insert into room_epochs (room_id, epoch, keep) values (in_room, raised, kept);
  delete from room_epochs e where e.room_id = in_room
    and e.epoch <= (select x.epoch from room_epochs x where x.room_id = in_room order by x.epoch desc offset 1000 limit 1);
  return query select raised, top, kept;
end $function$;

CREATE OR REPLACE FUNCTION public.chat_react(in_rooms uuid[], in_mids text[], in_emojis text[], in_users text[], in_ons boolean[])
 RETURNS TABLE(room_id uuid, mid text, counts jsonb)
 LANGUAGE plpgsql
AS $function$
#variable_conflict use_column
declare
  it record;
  there_rooms uuid[];
  there_mids text[];
begin
  select array_agg(t.room_id), array_agg(t.mid) into there_rooms, there_mids from (
    select m.room_id, m.mid from messages m
      join (select distinct g.room_id, g.mid from unnest(in_rooms, in_mids) g(room_id, mid)) g on m.room_id = g.room_id and m.mid = g.mid
    where m.type = 'msg' order by m.room_id, m.mid for share of m) t;
  if there_rooms is null then return; end if;
  insert into reaction_counts (room_id, mid, counts, changed_at)
    select t.room_id, t.mid, '{}'::jsonb, now() from unnest(there_rooms, there_mids) t(room_id, mid) order by t.room_id, t.mid
    on conflict (room_id, mid) do update set changed_at = now();
  for it in
    select g.* from unnest(in_rooms, in_mids, in_emojis, in_users, in_ons) with ordinality g(room_id, mid, emoji, user_id, is_on, n)
      join unnest(there_rooms, there_mids) t(room_id, mid) on t.room_id = g.room_id and t.mid = g.mid
    -- Of an account that is deleted nothing comes back.
    where not exists (select from chat_erasures e where e.account_id = g.user_id) order by g.n
  loop
    if not it.is_on then
      delete from reactions x where x.room_id = it.room_id and x.mid = it.mid and x.emoji = it.emoji and x.user_id = it.user_id;
    elsif (select count(*) filter (where x.user_id = it.user_id) < 10
        and (count(distinct x.emoji) < 20 or bool_or(x.emoji = it.emoji)) from reactions x where x.room_id = it.room_id and x.mid = it.mid) then
      insert into reactions (room_id, mid, emoji, user_id) values (it.room_id, it.mid, it.emoji, it.user_id) on conflict do nothing;
    end if;
  end loop;
  return query select c.room_id, c.mid, c.counts from chat_count_reactions(there_rooms, there_mids) c;
end $function$;

CREATE OR REPLACE FUNCTION public.chat_room_is_deleted()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  perform chat_has_changed('channel', old.id, old.channel_id, null, null);
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.chat_rules_have_changed()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  if tg_table_name = 'rooms' then perform chat_has_changed('rules', new.id, new.channel_id, null, null);
  elsif tg_op = 'DELETE' then perform chat_has_changed('rules', old.room_id, null, null, null);
  else perform chat_has_changed('rules', new.room_id, null, null, null);
  end if;
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.chat_sanction_has_changed()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  perform chat_has_changed('sanction', new.room_id, null, new.user_id, null);
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.chat_session_has_ended()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  perform chat_has_changed('session', null, null, null, new.session_id);
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.close_playback_of_broadcast()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  insert into playback_closed (scope, slug, first_number, last_number, closed_until)
    select 'vod/' || old.id, (select slug from channels where id = old.channel_id), old.first_number, old.last_number, now() + interval '7 days'
    on conflict do nothing;
  return old;
end $function$;

CREATE OR REPLACE FUNCTION public.close_playback_of_channel()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
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
end $function$;

CREATE OR REPLACE FUNCTION public.end_links_by_service_role(account uuid, lost_links boolean, lost_play boolean)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
begin
  if lost_links then perform end_links_of(account, 'links', null, slugs_heard_by(account, '{host}')); end if;
  if lost_play then perform end_links_of(account, 'play', null, slugs_heard_by(account, '{host,moderator}')); end if;
end $function$;

CREATE OR REPLACE FUNCTION public.end_links_of(account uuid, what_ends text, on_slug text, but text[])
 RETURNS void
 LANGUAGE sql
AS $function$
  insert into ended_playback_links (account_id, what, slug, except_slugs, ended_at, kept_until)
    values (account, what_ends, on_slug, but, clock_timestamp() + interval '5 seconds', clock_timestamp() + interval '31 days')
  on conflict (account_id, what, slug) where slug is not null do update set ended_at = excluded.ended_at, kept_until = excluded.kept_until
$function$;

CREATE OR REPLACE FUNCTION public.end_what_was_made_by(account uuid)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
begin
  update channels set stream_key_hash = hash_of_no_key(), previous_key_hash = null, stream_key_by = null, key_voids = key_voids + 1
    where stream_key_by = account and not runs_channel(id, account);
  update webhooks set active = false, note = 'the account that set it up may no longer manage it'
    where maker_id = account and active and not case when channel_id is null
      then exists (select 1 from accounts where id = account and banned_at is null and role = 'admin')
      else runs_channel(channel_id, account) end;
end $function$;

CREATE OR REPLACE FUNCTION public.factor_lost(account uuid)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
declare has_role text;
begin
  select role into has_role from accounts a where id = account and totp_confirmed_at is null
    and not exists (select 1 from passkeys p where p.account_id = a.id);
  if not found then return; end if;
  update api_keys set second_factor = false where account_id = account and second_factor and not by_server;
  update sessions set amr = array(select method from unnest(amr) as method where method not in ('mfa', 'otp', 'hwk', 'swk', 'sc'))
    where account_id = account and amr && '{mfa,otp,hwk,swk,sc}'::text[];
  perform end_links_by_service_role(account, has_role = 'admin', has_role in ('admin', 'moderator'));
  -- Connections of the chat are looked at.
  perform chat_has_changed('account', null, null, account::text, null);
end $function$;

CREATE OR REPLACE FUNCTION public.hash_of_no_key()
 RETURNS bytea
 LANGUAGE sql
AS $function$
  select sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'))
$function$;

CREATE OR REPLACE FUNCTION public.lost_links_of_channel(channel uuid, account uuid)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
declare one record;
begin
  select c.slug, a.role, c.owner_id = a.id as owns, (select m.role from channel_members m where m.channel_id = c.id and m.account_id = a.id) as member
    into one from channels c, accounts a where c.id = channel and a.id = account;
  -- A deleted channel is closed, and all links of a deleted account are.
  if not found then return; end if;
  if one.role = 'admin' or one.owns or one.member = 'host' then return; end if;
  perform end_links_of(account, 'links', one.slug, '{}');
  if one.role <> 'moderator' and one.member is null then perform end_links_of(account, 'play', one.slug, '{}'); end if;
end $function$;

CREATE OR REPLACE FUNCTION public.member_lost_links()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  perform lost_links_of_channel(old.channel_id, old.account_id);
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.member_lost_rights()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  perform end_what_was_made_by(old.account_id);
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.owner_lost_links()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  perform lost_links_of_channel(old.id, old.owner_id);
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.owner_lost_rights()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  perform end_what_was_made_by(old.owner_id);
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.passkey_gone()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  perform factor_lost(old.account_id);
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.playback_has_changed()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  update playback_changes set version = version + 1;
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.refuse_slug_of_closed_channel()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  delete from playback_closed where scope = 'live/' || new.slug and closed_until <= now();
  if exists (select 1 from playback_closed where scope = 'live/' || new.slug) then
    raise exception 'links to a deleted channel of this slug may be good still'
      using errcode = 'unique_violation', constraint = 'channels_slug_closed';
  end if;
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.remember_links_of_channel()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  new.links_until := now() + interval '30 days';
  return new;
end $function$;

CREATE OR REPLACE FUNCTION public.room_takes_its_messages()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  delete from messages where room_id = old.id;
  return old;
end $function$;

CREATE OR REPLACE FUNCTION public.runs_channel(channel uuid, account uuid)
 RETURNS boolean
 LANGUAGE sql
 STABLE
AS $function$
  select exists (
    select 1 from accounts a where a.id = account and a.banned_at is null and (a.role = 'admin'
      or exists (select 1 from channels c where c.id = channel and c.owner_id = a.id)
      or exists (select 1 from channel_members m where m.channel_id = channel and m.account_id = a.id and m.role = 'host')))
$function$;

CREATE OR REPLACE FUNCTION public.slugs_heard_by(account uuid, roles text[])
 RETURNS text[]
 LANGUAGE sql
 STABLE
AS $function$
  select coalesce(array_agg(c.slug), '{}') from channels c where c.owner_id = account
    or exists (select 1 from channel_members m where m.channel_id = c.id and m.account_id = account and m.role = any(roles))
$function$;

CREATE OR REPLACE FUNCTION public.void_keys_known_to(account uuid)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
begin
  update channels c set stream_key_hash = hash_of_no_key(), previous_key_hash = null, stream_key_by = null, key_voids = key_voids + 1
    where owner_id = account or stream_key_by = account
      or exists (select 1 from channel_members m where m.channel_id = c.id and m.account_id = account and m.role = 'host');
end $function$;

-- Triggers

CREATE CONSTRAINT TRIGGER accounts_change_chat AFTER UPDATE OF banned_at, role, name ON public.accounts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((((old.banned_at IS DISTINCT FROM new.banned_at) OR (old.role IS DISTINCT FROM new.role)) OR (old.name IS DISTINCT FROM new.name))) EXECUTE FUNCTION chat_account_has_changed();
CREATE CONSTRAINT TRIGGER accounts_deleted_change_chat AFTER DELETE ON public.accounts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION chat_account_has_changed();
CREATE TRIGGER accounts_deleted_erase_chat AFTER DELETE ON public.accounts FOR EACH ROW EXECUTE FUNCTION chat_forgets_the_account();
CREATE TRIGGER accounts_go BEFORE DELETE ON public.accounts FOR EACH ROW EXECUTE FUNCTION account_goes();
CREATE CONSTRAINT TRIGGER accounts_lose_factor AFTER UPDATE OF totp_confirmed_at ON public.accounts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (((old.totp_confirmed_at IS NOT NULL) AND (new.totp_confirmed_at IS NULL))) EXECUTE FUNCTION account_lost_factor();
CREATE TRIGGER accounts_lose_rights AFTER UPDATE OF role, banned_at ON public.accounts FOR EACH ROW WHEN (((new.role IS DISTINCT FROM old.role) OR ((new.banned_at IS NOT NULL) AND (old.banned_at IS NULL)))) EXECUTE FUNCTION account_lost_rights();
CREATE TRIGGER accounts_lose_rights_links AFTER UPDATE OF role, banned_at ON public.accounts FOR EACH ROW WHEN (((new.role IS DISTINCT FROM old.role) OR ((new.banned_at IS NOT NULL) AND (old.banned_at IS NULL)))) EXECUTE FUNCTION account_lost_links();
CREATE TRIGGER accounts_lose_rights_links_gone AFTER DELETE ON public.accounts FOR EACH ROW EXECUTE FUNCTION account_lost_links();
CREATE TRIGGER audit_log_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.audit_log FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only();
CREATE TRIGGER broadcasts_change_playback AFTER INSERT OR DELETE OR UPDATE OF visibility, last_number ON public.broadcasts FOR EACH STATEMENT EXECUTE FUNCTION playback_has_changed();
CREATE TRIGGER broadcasts_close_playback BEFORE DELETE ON public.broadcasts FOR EACH ROW EXECUTE FUNCTION close_playback_of_broadcast();
CREATE TRIGGER broadcasts_keep_chat AFTER DELETE OR UPDATE OF recording, started_at, ended_at ON public.broadcasts FOR EACH ROW EXECUTE FUNCTION chat_keeps_less();
CREATE CONSTRAINT TRIGGER channel_members_change_chat AFTER INSERT OR DELETE OR UPDATE ON public.channel_members DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION chat_member_has_changed();
CREATE CONSTRAINT TRIGGER members_lose_rights AFTER DELETE OR UPDATE ON public.channel_members DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION member_lost_rights();
CREATE CONSTRAINT TRIGGER members_lose_rights_links AFTER DELETE OR UPDATE ON public.channel_members DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION member_lost_links();
CREATE CONSTRAINT TRIGGER channels_change_chat AFTER UPDATE OF visibility, owner_id ON public.channels DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (((old.visibility IS DISTINCT FROM new.visibility) OR (old.owner_id IS DISTINCT FROM new.owner_id))) EXECUTE FUNCTION chat_channel_has_changed();
CREATE TRIGGER channels_change_playback AFTER INSERT OR DELETE OR UPDATE OF visibility, countries_allowed, countries_denied ON public.channels FOR EACH STATEMENT EXECUTE FUNCTION playback_has_changed();
CREATE TRIGGER channels_close_playback BEFORE DELETE ON public.channels FOR EACH ROW EXECUTE FUNCTION close_playback_of_channel();
CREATE TRIGGER channels_have_a_room AFTER INSERT ON public.channels FOR EACH ROW EXECUTE FUNCTION channel_has_a_room();
CREATE TRIGGER channels_refuse_closed_slug AFTER INSERT ON public.channels FOR EACH ROW EXECUTE FUNCTION refuse_slug_of_closed_channel();
CREATE TRIGGER channels_remember_links BEFORE UPDATE OF visibility ON public.channels FOR EACH ROW WHEN (((old.visibility = 'private'::text) AND (new.visibility <> 'private'::text))) EXECUTE FUNCTION remember_links_of_channel();
CREATE CONSTRAINT TRIGGER owners_lose_rights AFTER UPDATE ON public.channels DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (((old.owner_id IS NOT NULL) AND (new.owner_id IS DISTINCT FROM old.owner_id))) EXECUTE FUNCTION owner_lost_rights();
CREATE CONSTRAINT TRIGGER owners_lose_rights_links AFTER UPDATE ON public.channels DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (((old.owner_id IS NOT NULL) AND (new.owner_id IS DISTINCT FROM old.owner_id))) EXECUTE FUNCTION owner_lost_links();
CREATE TRIGGER ended_links_change_playback AFTER INSERT OR UPDATE ON public.ended_playback_links FOR EACH STATEMENT EXECUTE FUNCTION playback_has_changed();
CREATE CONSTRAINT TRIGGER ended_sessions_change_chat AFTER INSERT ON public.ended_sessions DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION chat_session_has_ended();
CREATE CONSTRAINT TRIGGER held_messages_change_chat AFTER UPDATE OF decision ON public.held_messages DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((new.decision = 'denied'::text)) EXECUTE FUNCTION chat_sanction_has_changed();
CREATE CONSTRAINT TRIGGER messages_change_pins AFTER UPDATE OF type ON public.messages DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (((old.type = 'msg'::text) AND (new.type = 'gone'::text))) EXECUTE FUNCTION chat_pin_is_erased();
CREATE TRIGGER messages_drop_reactions_deleted AFTER DELETE ON public.messages REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION chat_drop_reactions();
CREATE TRIGGER messages_drop_reactions_erased AFTER UPDATE ON public.messages REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION chat_drop_reactions();
CREATE CONSTRAINT TRIGGER passkeys_go AFTER DELETE ON public.passkeys DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION passkey_gone();
CREATE TRIGGER keys_change_playback AFTER INSERT OR DELETE ON public.playback_keys FOR EACH STATEMENT EXECUTE FUNCTION playback_has_changed();
CREATE CONSTRAINT TRIGGER room_address_bans_change_chat AFTER INSERT OR UPDATE ON public.room_address_bans DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION chat_rules_have_changed();
CREATE CONSTRAINT TRIGGER room_bans_change_chat AFTER INSERT OR UPDATE ON public.room_bans DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION chat_sanction_has_changed();
CREATE CONSTRAINT TRIGGER room_pins_change_chat AFTER INSERT OR DELETE OR UPDATE ON public.room_pins DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION chat_rules_have_changed();
CREATE TRIGGER room_pins_keep_chat AFTER DELETE OR UPDATE OF mid ON public.room_pins FOR EACH ROW EXECUTE FUNCTION chat_keeps_less();
CREATE CONSTRAINT TRIGGER room_terms_change_chat AFTER INSERT OR UPDATE ON public.room_terms DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION chat_rules_have_changed();
CREATE CONSTRAINT TRIGGER room_timeouts_change_chat AFTER INSERT OR UPDATE ON public.room_timeouts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION chat_sanction_has_changed();
CREATE CONSTRAINT TRIGGER room_warnings_change_chat AFTER INSERT ON public.room_warnings DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION chat_sanction_has_changed();
CREATE CONSTRAINT TRIGGER rooms_change_chat AFTER UPDATE OF settings ON public.rooms DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((old.settings IS DISTINCT FROM new.settings)) EXECUTE FUNCTION chat_rules_have_changed();
CREATE CONSTRAINT TRIGGER rooms_deleted_change_chat AFTER DELETE ON public.rooms DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION chat_room_is_deleted();
CREATE TRIGGER rooms_take_their_messages BEFORE DELETE ON public.rooms FOR EACH ROW EXECUTE FUNCTION room_takes_its_messages();
