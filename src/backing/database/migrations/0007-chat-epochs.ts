/**
 * An epoch is never given twice, even by a database that was restored from a backup or failed over
 * to a replica that was behind: it contains the time at which it was raised. Archiving a batch
 * distinguishes its entries by epoch.
 */
export const chatEpochs = `
-- Milliseconds since 1970, times 1024, and ten random bits: below 2^53 until the year 2248.
alter table rooms alter column epoch type bigint;
alter table room_epochs alter column epoch type bigint;
alter table messages alter column epoch type bigint;

drop function chat_archive(uuid[], int[], bigint[], text[], text[], text[], text[], text[], timestamptz[], timestamptz[], uuid[], int[], bigint[],
  timestamptz[], uuid[], int[], text[], bigint[], timestamptz[]);
drop function chat_raise_epoch(uuid, int);

-- Entries that are not named in the answer are stored. Of the others:
--   fenced: the room has another epoch, or is gone; or another entry has this place. Nothing was stored.
--   known:  the message is there under another offset, which is told; here it is 'gone', so that there is no hole.
--   again:  another process is storing the same message at this moment.
-- The lock makes an epoch and what was stored in it one thing: whoever raises the epoch waits for those who store, and then sees it.
create function chat_archive(
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

  if cardinality(erase_offsets) > 0 then
    delete from reactions x using unnest(erase_rooms, erase_epochs, erase_offsets) e(room_id, epoch, "offset"), rooms r, messages m
      where r.id = e.room_id and r.epoch = e.epoch and m.room_id = e.room_id and m."offset" = e."offset" and x.room_id = m.room_id and x.mid = m.mid;
    delete from reaction_counts x using unnest(erase_rooms, erase_epochs, erase_offsets) e(room_id, epoch, "offset"), rooms r, messages m
      where r.id = e.room_id and r.epoch = e.epoch and m.room_id = e.room_id and m."offset" = e."offset" and x.room_id = m.room_id and x.mid = m.mid;
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
    delete from reactions x using unnest(wipe_rooms, wipe_epochs, wipe_users, wipe_offsets) w(room_id, epoch, user_id, "offset"), rooms r, messages m
      where r.id = w.room_id and r.epoch = w.epoch and m.room_id = w.room_id and m.user_id = w.user_id and m."offset" <= w."offset"
        and x.room_id = m.room_id and x.mid = m.mid;
    delete from reaction_counts x using unnest(wipe_rooms, wipe_epochs, wipe_users, wipe_offsets) w(room_id, epoch, user_id, "offset"), rooms r, messages m
      where r.id = w.room_id and r.epoch = w.epoch and m.room_id = w.room_id and m.user_id = w.user_id and m."offset" <= w."offset"
        and x.room_id = m.room_id and x.mid = m.mid;
    update messages m set type = 'gone', payload = '{}', key = null, user_id = null, deleted_at = w.at
    from unnest(wipe_rooms, wipe_epochs, wipe_users, wipe_offsets, wipe_ats) w(room_id, epoch, user_id, "offset", at)
      join rooms r on r.id = w.room_id and r.epoch = w.epoch
    where m.room_id = w.room_id and m.user_id = w.user_id and m."offset" <= w."offset" and m.type in ('msg', 'shadow');
  end if;
end $$;

-- No row: the epoch is not the expected one. 'keep': up to here nothing is missing; what was missing above it is filled by 'gone'.
-- 'in_above': the highest epoch that the caller has seen anywhere; the new one is above it, also where this database has forgotten it.
create function chat_raise_epoch(in_room uuid, in_expected bigint, in_above bigint default 0)
returns table (epoch bigint, head bigint, keep bigint) language plpgsql as $$
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
end $$;
`;
