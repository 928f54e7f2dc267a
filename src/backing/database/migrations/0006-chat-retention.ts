/**
 * How much of each room below its floor is already checked, so that messages that must be kept are
 * not checked again and again.
 */
export const chatRetention = `
-- Up to here everything below the floor is deleted, except what belongs to a recording or is pinned. 0: to be looked at from the beginning.
alter table rooms add column swept bigint not null default 0;

-- What a recording has kept goes when the recording does, and what was pinned when it is not any more.
create function chat_keeps_less() returns trigger language plpgsql as $$
begin
  if tg_table_name = 'broadcasts' then update rooms set swept = 0 where channel_id = old.channel_id and swept > 0;
  else update rooms set swept = 0 where id = old.room_id and swept > 0;
  end if;
  return null;
end $$;
create trigger broadcasts_keep_chat after delete or update of recording, started_at, ended_at on broadcasts
  for each row execute function chat_keeps_less();
create trigger room_pins_keep_chat after delete or update of mid on room_pins
  for each row execute function chat_keeps_less();

-- As before, save that a message that is kept below the floor is erased as well.
create or replace function chat_archive(
  in_rooms uuid[], in_epochs int[], in_offsets bigint[], in_types text[], in_mids text[], in_keys text[], in_users text[], in_payloads text[],
  in_sent timestamptz[], in_ats timestamptz[], erase_rooms uuid[], erase_epochs int[], erase_offsets bigint[], erase_ats timestamptz[],
  wipe_rooms uuid[], wipe_epochs int[], wipe_users text[], wipe_offsets bigint[], wipe_ats timestamptz[]
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
    returning room_id, "offset"
  )
  select g.n::int,
    case when r.epoch is distinct from g.epoch then 'fenced'
      when k.n is not null and (s."offset" is not null or m.epoch = g.epoch) then 'known'
      -- Another entry has this place: a log that was set back and did not notice. What it gives is worth nothing.
      when m."offset" is not null then case when m.epoch = g.epoch and (m.type = 'gone'
        or (m.mid is not distinct from g.mid and (m.mid is not null or m.payload = g.payload))) then 'stored' else 'fenced' end
      else 'again' end,
    k."offset"
  from given g
    left join rooms r on r.id = g.room_id
    left join known k on k.n = g.n
    left join stored s on s.room_id = g.room_id and s."offset" = g."offset"
    left join messages m on m.room_id = g.room_id and m."offset" = g."offset"
  where s."offset" is null or k.n is not null;

  if cardinality(erase_offsets) > 0 then
    delete from reactions x using unnest(erase_rooms, erase_offsets) e(room_id, "offset"), messages m
      where m.room_id = e.room_id and m."offset" = e."offset" and x.room_id = m.room_id and x.mid = m.mid;
    delete from reaction_counts x using unnest(erase_rooms, erase_offsets) e(room_id, "offset"), messages m
      where m.room_id = e.room_id and m."offset" = e."offset" and x.room_id = m.room_id and x.mid = m.mid;
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
    delete from reactions x using unnest(wipe_rooms, wipe_users) w(room_id, user_id), messages m
      where m.room_id = w.room_id and m.user_id = w.user_id and x.room_id = m.room_id and x.mid = m.mid;
    delete from reaction_counts x using unnest(wipe_rooms, wipe_users) w(room_id, user_id), messages m
      where m.room_id = w.room_id and m.user_id = w.user_id and x.room_id = m.room_id and x.mid = m.mid;
    update messages m set type = 'gone', payload = '{}', key = null, user_id = null, deleted_at = w.at
    from unnest(wipe_rooms, wipe_epochs, wipe_users, wipe_offsets, wipe_ats) w(room_id, epoch, user_id, "offset", at)
      join rooms r on r.id = w.room_id and r.epoch = w.epoch
    where m.room_id = w.room_id and m.user_id = w.user_id and m."offset" <= w."offset" and m.type in ('msg', 'shadow');
  end if;
end $$;
`;
