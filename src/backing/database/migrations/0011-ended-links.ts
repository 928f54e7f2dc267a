/**
 * Playback links, account links and second factors end with the right of the account that made or
 * showed them. Migration 0008 does the same for stream keys and webhooks.
 */
export const endedLinks = `
-- Playback links that are void though they have not expired: those that an account made before a time. A token names its maker and when it was
-- made (src/access/playback/playback-token.ts). Kept for as long as such a link may be good (MAX_LINK_S).
create table ended_playback_links (
  number bigint generated always as identity primary key,
  -- No reference: a deleted account's links are among them.
  account_id uuid not null,
  -- links: those it gave to others. play: those it was given to hear with.
  what text not null,
  -- Null: of all channels but those in "except".
  slug text,
  except_slugs text[] not null default '{}',
  ended_at timestamptz not null,
  kept_until timestamptz not null
);
create unique index ended_playback_links_by_channel on ended_playback_links (account_id, what, slug) where slug is not null;
create index ended_playback_links_by_end on ended_playback_links (kept_until);
create trigger ended_links_change_playback after insert or update on ended_playback_links
  for each statement execute function playback_has_changed();

-- "what" ends for an account: on one channel, or on all but those on which it has the right by a role there. Five seconds more than now, for a link
-- that is being made while this is not committed, and since clocks of processes differ.
create function end_links_of(account uuid, what_ends text, on_slug text, but text[]) returns void language sql as $$
  insert into ended_playback_links (account_id, what, slug, except_slugs, ended_at, kept_until)
    values (account, what_ends, on_slug, but, clock_timestamp() + interval '5 seconds', clock_timestamp() + interval '31 days')
  on conflict (account_id, what, slug) where slug is not null do update set ended_at = excluded.ended_at, kept_until = excluded.kept_until
$$;

create function slugs_heard_by(account uuid, roles text[]) returns text[] language sql stable as $$
  select coalesce(array_agg(c.slug), '{}') from channels c where c.owner_id = account
    or exists (select 1 from channel_members m where m.channel_id = c.id and m.account_id = account and m.role = any(roles))
$$;

-- Whatever its role on the service gave it.
create function end_links_by_service_role(account uuid, lost_links boolean, lost_play boolean) returns void language plpgsql as $$
begin
  if lost_links then perform end_links_of(account, 'links', null, slugs_heard_by(account, '{host}')); end if;
  if lost_play then perform end_links_of(account, 'play', null, slugs_heard_by(account, '{host,moderator}')); end if;
end $$;

create function account_lost_links() returns trigger language plpgsql as $$
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
end $$;
-- Named so as to come after those of 0008, which lock channels: whatever changes a channel locks playback_changes after it.
create trigger accounts_lose_rights_links after update of role, banned_at on accounts for each row
  when (new.role is distinct from old.role or (new.banned_at is not null and old.banned_at is null))
  execute function account_lost_links();
create trigger accounts_lose_rights_links_gone after delete on accounts for each row execute function account_lost_links();

-- At the end of the transaction, when it is known what is left to the account.
create function lost_links_of_channel(channel uuid, account uuid) returns void language plpgsql as $$
declare one record;
begin
  select c.slug, a.role, c.owner_id = a.id as owns, (select m.role from channel_members m where m.channel_id = c.id and m.account_id = a.id) as member
    into one from channels c, accounts a where c.id = channel and a.id = account;
  -- A deleted channel is closed, and all links of a deleted account are.
  if not found then return; end if;
  if one.role = 'admin' or one.owns or one.member = 'host' then return; end if;
  perform end_links_of(account, 'links', one.slug, '{}');
  if one.role <> 'moderator' and one.member is null then perform end_links_of(account, 'play', one.slug, '{}'); end if;
end $$;
create function member_lost_links() returns trigger language plpgsql as $$
begin
  perform lost_links_of_channel(old.channel_id, old.account_id);
  return null;
end $$;
create constraint trigger members_lose_rights_links after delete or update on channel_members deferrable initially deferred
  for each row execute function member_lost_links();
create function owner_lost_links() returns trigger language plpgsql as $$
begin
  perform lost_links_of_channel(old.id, old.owner_id);
  return null;
end $$;
create constraint trigger owners_lose_rights_links after update on channels deferrable initially deferred
  for each row when (old.owner_id is not null and new.owner_id is distinct from old.owner_id) execute function owner_lost_links();

-- The administrator who made the link, if one did: it ends with their role. Null: a mail that its holder asked for, or the admin token.
alter table one_time_links add column made_by uuid;
create index one_time_links_by_maker on one_time_links (made_by) where made_by is not null;

-- The admin token vouches for it, and not the second factor of its account.
alter table api_keys add column by_server boolean not null default false;

-- With its last second factor: keys and sessions no longer count as proven, and neither does what they were used for.
create function factor_lost(account uuid) returns void language plpgsql as $$
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
end $$;
create function account_lost_factor() returns trigger language plpgsql as $$
begin
  perform factor_lost(new.id);
  return null;
end $$;
create constraint trigger accounts_lose_factor after update of totp_confirmed_at on accounts deferrable initially deferred for each row
  when (old.totp_confirmed_at is not null and new.totp_confirmed_at is null) execute function account_lost_factor();
create function passkey_gone() returns trigger language plpgsql as $$
begin
  perform factor_lost(old.account_id);
  return null;
end $$;
create constraint trigger passkeys_go after delete on passkeys deferrable initially deferred for each row execute function passkey_gone();
`;
