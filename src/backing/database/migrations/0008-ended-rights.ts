/**
 * A grant ends in the transaction that takes its right away. The database does it, so it does not
 * matter who takes the right away and how: the API, another process, a cascade.
 *
 * A stream key works for everybody who knows it, so it is bound to the account that made it. It
 * becomes void when that account may no longer make one. It also becomes void when an owner or a
 * host is banned or deleted, since they knew it even if another account made it.
 */
export const endedRights = `
-- The account that made the key. No reference: a deleted account must be seen to be gone. Null: the admin token made it, or it is void.
alter table channels add column stream_key_by uuid;
-- How often a key of this channel was made void. A show that began before the last time is over.
alter table channels add column key_voids int not null default 0;
update channels set stream_key_by = owner_id;
create index channels_by_key_maker on channels (stream_key_by);

-- The account that set it up, itself or by an API key.
alter table webhooks add column maker_id uuid;
update webhooks set maker_id = substr(created_by, 9)::uuid where created_by ~ '^account:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$';
update webhooks w set maker_id = k.account_id from api_keys k where w.created_by = 'api-key:' || k.id::text;
create index webhooks_by_maker on webhooks (maker_id);

-- Nobody has a key with this hash: what is hashed has not the form of one, and is forgotten.
create function hash_of_no_key() returns bytea language sql volatile as $$
  select sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'))
$$;

create function runs_channel(channel uuid, account uuid) returns boolean language sql stable as $$
  select exists (
    select 1 from accounts a where a.id = account and a.banned_at is null and (a.role = 'admin'
      or exists (select 1 from channels c where c.id = channel and c.owner_id = a.id)
      or exists (select 1 from channel_members m where m.channel_id = channel and m.account_id = a.id and m.role = 'host')))
$$;

create function end_what_was_made_by(account uuid) returns void language plpgsql as $$
begin
  update channels set stream_key_hash = hash_of_no_key(), previous_key_hash = null, stream_key_by = null, key_voids = key_voids + 1
    where stream_key_by = account and not runs_channel(id, account);
  update webhooks set active = false, note = 'the account that set it up may no longer manage it'
    where maker_id = account and active and not case when channel_id is null
      then exists (select 1 from accounts where id = account and banned_at is null and role = 'admin')
      else runs_channel(channel_id, account) end;
end $$;

create function void_keys_known_to(account uuid) returns void language plpgsql as $$
begin
  update channels c set stream_key_hash = hash_of_no_key(), previous_key_hash = null, stream_key_by = null, key_voids = key_voids + 1
    where owner_id = account or stream_key_by = account
      or exists (select 1 from channel_members m where m.channel_id = c.id and m.account_id = account and m.role = 'host');
end $$;

create function account_lost_rights() returns trigger language plpgsql as $$
begin
  if new.banned_at is not null and old.banned_at is null then
    perform void_keys_known_to(new.id);
  end if;
  perform end_what_was_made_by(new.id);
  return null;
end $$;
create trigger accounts_lose_rights after update of role, banned_at on accounts for each row
  when (new.role is distinct from old.role or (new.banned_at is not null and old.banned_at is null))
  execute function account_lost_rights();

create function account_goes() returns trigger language plpgsql as $$
begin
  perform void_keys_known_to(old.id);
  update webhooks set active = false, note = 'the account that set it up is deleted' where maker_id = old.id and active;
  return old;
end $$;
create trigger accounts_go before delete on accounts for each row execute function account_goes();

-- At the end of the transaction: a channel is handed over in several steps, and the former owner is a host only after the last.
create function member_lost_rights() returns trigger language plpgsql as $$
begin
  perform end_what_was_made_by(old.account_id);
  return null;
end $$;
create constraint trigger members_lose_rights after delete or update on channel_members deferrable initially deferred
  for each row execute function member_lost_rights();
create function owner_lost_rights() returns trigger language plpgsql as $$
begin
  perform end_what_was_made_by(old.owner_id);
  return null;
end $$;
create constraint trigger owners_lose_rights after update on channels deferrable initially deferred
  for each row when (old.owner_id is not null and new.owner_id is distinct from old.owner_id) execute function owner_lost_rights();

-- What was left of accounts that are banned already.
do $$
declare banned uuid;
begin
  for banned in select id from accounts where banned_at is not null loop
    perform void_keys_known_to(banned);
    perform end_what_was_made_by(banned);
  end loop;
end $$;
`;
