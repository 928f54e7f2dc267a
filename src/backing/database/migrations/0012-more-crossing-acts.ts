/**
 * More acts that happen at the same time: reactions are deleted with their message even if another
 * one arrives meanwhile, and no message of a user with a timeout is held.
 */
export const moreCrossingActs = `
-- Locks are taken in one order everywhere: messages, then reaction_counts, then reactions; many of one table in the order of (room_id, mid).

-- The counts of what changed. A message takes 20 different emoji, and an account 10 of them; one more changes nothing.
-- The messages stay as they are until this is committed: what erases one of them waits, and then finds what was put here.
create or replace function chat_react(in_rooms uuid[], in_mids text[], in_emojis text[], in_users text[], in_ons boolean[])
returns table (room_id uuid, mid text, counts jsonb) language plpgsql as $$
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
end $$;

-- Of messages whose rows in reaction_counts are locked.
create function chat_count_reactions(in_rooms uuid[], in_mids text[])
returns table (room_id uuid, mid text, counts jsonb) language plpgsql as $$
#variable_conflict use_column
begin
  return query
  update reaction_counts c set changed_at = now(), counts = coalesce(
      (select jsonb_object_agg(x.emoji, x.n) from
        (select x.emoji, count(*) as n from reactions x where x.room_id = c.room_id and x.mid = c.mid group by x.emoji) x), '{}')
  from unnest(in_rooms, in_mids) t(room_id, mid)
  where c.room_id = t.room_id and c.mid = t.mid
  returning c.room_id, c.mid, c.counts;
end $$;

-- All of an account. Counted once the rows are locked, so that what others react meanwhile is in the counts.
create function chat_erase_reactions(in_user text) returns void language plpgsql as $$
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
end $$;

-- After the message, so that a reaction that was being stored is there by now: its transaction had kept the message.
create function chat_drop_reactions() returns trigger language plpgsql as $$
begin
  if tg_op = 'UPDATE' then
    delete from reaction_counts c using changed m where m.type = 'gone' and c.room_id = m.room_id and c.mid = m.mid;
    delete from reactions x using changed m where m.type = 'gone' and x.room_id = m.room_id and x.mid = m.mid;
  else
    delete from reaction_counts c using changed m where c.room_id = m.room_id and c.mid = m.mid;
    delete from reactions x using changed m where x.room_id = m.room_id and x.mid = m.mid;
  end if;
  return null;
end $$;
create trigger messages_drop_reactions_erased after update on messages referencing new table as changed
  for each statement execute function chat_drop_reactions();
create trigger messages_drop_reactions_deleted after delete on messages referencing old table as changed
  for each statement execute function chat_drop_reactions();

-- What was left behind before this.
delete from reaction_counts c where not exists (select from messages m where m.room_id = c.room_id and m.mid = c.mid and m.type = 'msg');
delete from reactions x where not exists (select from messages m where m.room_id = x.room_id and m.mid = x.mid and m.type = 'msg');

-- Entries that are not named in the answer are stored. Of the others:
--   fenced: the room has another epoch, or is gone; or another entry has this place. Nothing was stored.
--   known:  the message is there under another offset, which is told; here it is 'gone', so that there is no hole.
--   again:  another process is storing the same message at this moment.
-- The lock makes an epoch and what was stored in it one thing: whoever raises the epoch waits for those who store, and then sees it.
create or replace function chat_archive(
  in_rooms uuid[], in_epochs bigint[], in_offsets bigint[], in_types text[], in_mids text[], in_keys text[], in_users text[], in_payloads text[],
  in_sent timestamptz[], in_ats timestamptz[], erase_rooms uuid[], erase_epochs bigint[], erase_offsets bigint[], erase_ats timestamptz[],
  wipe_rooms uuid[], wipe_epochs bigint[], wipe_users text[], wipe_offsets bigint[], wipe_ats timestamptz[]
) returns table (n int, outcome text, other bigint) language plpgsql as $$
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
end $$;

-- 'timed_out': its author has a timeout, which another process may not have heard of. The other outcomes are as they were.
create or replace function chat_hold(
  in_room uuid, in_mid text, in_user text, in_name text, in_role text, in_since timestamptz, in_key text, in_body text, in_why text, in_at timestamptz,
  in_now timestamptz, in_most int, in_instead_of text
) returns table (outcome text, reason text, other bigint) language plpgsql as $$
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
end $$;
`;
