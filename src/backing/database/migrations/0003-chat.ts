/**
 * Chat rooms and their messages. A client gets the acknowledgement of a message when its row is in
 * `messages`.
 *
 * `chat_archive`, `chat_raise_epoch` and `chat_react` are functions because each takes a lock and
 * reads again afterwards: inside a function every statement has its own snapshot, inside one
 * statement there is only one. The client sends a single statement, so that no transaction stays
 * open on the embedded database, which has a single session.
 */
export const chat = `
create table rooms (
  id uuid primary key,
  -- Null: a room of the service itself, which nobody can join.
  channel_id uuid unique references channels on delete cascade,
  -- Raised by compare-and-set each time the log has lost the room. 0: was never open.
  epoch int not null default 0,
  -- What has an offset up to here was let go by age.
  floor bigint not null default 0,
  -- Up to here there is a row for each offset above the floor. A lower bound, so that looking for a hole does not begin at the floor.
  whole bigint not null default 0,
  settings jsonb not null default '{}',
  created_at timestamptz not null default now()
);

insert into rooms (id, channel_id) select gen_random_uuid(), id from channels;
create function channel_has_a_room() returns trigger language plpgsql as $$
begin
  insert into rooms (id, channel_id) values (gen_random_uuid(), new.id);
  return null;
end $$;
create trigger channels_have_a_room after insert on channels for each row execute function channel_has_a_room();

-- What members keep who come from an older epoch: the least 'keep' of all epochs since.
create table room_epochs (
  room_id uuid not null references rooms on delete cascade,
  epoch int not null,
  keep bigint not null,
  opened_at timestamptz not null default now(),
  primary key (room_id, epoch)
);

-- No foreign key: whoever inserts holds a lock on the room in the same statement, which a key would take once more for each row.
create table messages (
  room_id uuid not null,
  "offset" bigint not null,
  epoch int not null,
  -- 'msg', 'shadow' (of somebody whom others do not see), 'gone' (erased), 'del', 'act', 'pin', 'now', …
  type text not null,
  -- 128 bits of SHA-256(room, user, key), base64url. Stays when the message is erased: the same key is the same message still.
  mid text,
  key text,
  user_id text,
  -- JSON, as text: jsonb takes neither \\u0000 nor half a surrogate pair.
  payload text not null,
  -- Of a message that was held: when it was said.
  sent_at timestamptz,
  -- By the log's clock.
  created_at timestamptz not null,
  deleted_at timestamptz,
  primary key (room_id, "offset")
);
create unique index messages_by_mid on messages (room_id, mid) where mid is not null;
create index messages_recent on messages (room_id, created_at desc) where deleted_at is null;
create index messages_by_user on messages (user_id, room_id, "offset") where user_id is not null;

create table reactions (
  room_id uuid not null references rooms on delete cascade,
  mid text not null,
  emoji text not null,
  user_id text not null,
  primary key (room_id, mid, emoji, user_id)
);
create index reactions_by_user on reactions (user_id);
create table reaction_counts (
  room_id uuid not null references rooms on delete cascade,
  mid text not null,
  counts jsonb not null,
  changed_at timestamptz not null,
  primary key (room_id, mid)
);
create index reaction_counts_by_change on reaction_counts (changed_at);

create function room_takes_its_messages() returns trigger language plpgsql as $$
begin
  delete from messages where room_id = old.id;
  return old;
end $$;
create trigger rooms_take_their_messages before delete on rooms for each row execute function room_takes_its_messages();

-- Entries that are not named in the answer are stored. Of the others:
--   fenced: the room has another epoch, or is gone. Nothing was stored.
--   known:  the message is there under another offset, which is told; here it is 'gone', so that there is no hole.
--   again:  another process is storing the same message at this moment.
-- The lock makes an epoch and what was stored in it one thing: whoever raises the epoch waits for those who store, and then sees it.
create function chat_archive(
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
    -- What is not there yet, as another process is about to store it, is taken up by 'gone' before it comes.
    insert into messages (room_id, "offset", epoch, type, payload, created_at, deleted_at)
    select distinct on (e.room_id, e."offset") e.room_id, e."offset", e.epoch, 'gone', '{}',
      coalesce((select m.created_at from messages m where m.room_id = e.room_id and m."offset" < e."offset" order by m."offset" desc limit 1), e.at), e.at
    from unnest(erase_rooms, erase_epochs, erase_offsets, erase_ats) e(room_id, epoch, "offset", at)
      join rooms r on r.id = e.room_id and r.epoch = e.epoch and r.floor < e."offset"
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

-- No row: the epoch is not the expected one. 'keep': up to here nothing is missing; what was missing above it is filled by 'gone'.
create function chat_raise_epoch(in_room uuid, in_expected int) returns table (epoch int, head bigint, keep bigint) language plpgsql as $$
#variable_conflict use_column
declare
  base bigint;
  top bigint;
  kept bigint;
begin
  update rooms r set epoch = r.epoch + 1 where r.id = in_room and r.epoch = in_expected returning greatest(r.floor, r.whole) into base;
  if not found then return; end if;
  select coalesce(max(m."offset"), base) into top from messages m where m.room_id = in_room and m."offset" > base;
  -- Above the first hole every offset is more than its number.
  select base + count(*) into kept
    from (select m."offset", row_number() over (order by m."offset") as rank from messages m where m.room_id = in_room and m."offset" > base) x
    where x."offset" = base + x.rank;
  if kept < top then
    insert into messages (room_id, "offset", epoch, type, payload, created_at, deleted_at)
    select in_room, o, in_expected + 1, 'gone', '{}', coalesce(
        (select m.created_at from messages m where m.room_id = in_room and m."offset" < o order by m."offset" desc limit 1),
        (select m.created_at from messages m where m.room_id = in_room and m."offset" > o order by m."offset" limit 1)
      ), now()
    from generate_series(kept + 1, top) o
    on conflict do nothing;
  end if;
  update rooms set whole = top where id = in_room;
  insert into room_epochs (room_id, epoch, keep) values (in_room, in_expected + 1, kept);
  delete from room_epochs e where e.room_id = in_room and e.epoch <= in_expected - 1000;
  return query select in_expected + 1, top, kept;
end $$;

-- The counts of what changed. A message takes 20 different emoji, and an account 10 of them; one more changes nothing.
create function chat_react(in_rooms uuid[], in_mids text[], in_emojis text[], in_users text[], in_ons boolean[])
returns table (room_id uuid, mid text, counts jsonb) language plpgsql as $$
#variable_conflict use_column
declare
  it record;
begin
  -- In one order, or two processes would wait for each other.
  insert into reaction_counts (room_id, mid, counts, changed_at)
    select distinct g.room_id, g.mid, '{}'::jsonb, now() from unnest(in_rooms, in_mids) g(room_id, mid)
      join messages m on m.room_id = g.room_id and m.mid = g.mid and m.type = 'msg'
    order by g.room_id, g.mid
    on conflict (room_id, mid) do update set changed_at = now();
  for it in
    select g.* from unnest(in_rooms, in_mids, in_emojis, in_users, in_ons) with ordinality g(room_id, mid, emoji, user_id, is_on, n)
      join messages m on m.room_id = g.room_id and m.mid = g.mid and m.type = 'msg' order by g.n
  loop
    if not it.is_on then
      delete from reactions x where x.room_id = it.room_id and x.mid = it.mid and x.emoji = it.emoji and x.user_id = it.user_id;
    elsif (select count(*) filter (where x.user_id = it.user_id) < 10
        and (count(distinct x.emoji) < 20 or bool_or(x.emoji = it.emoji)) from reactions x where x.room_id = it.room_id and x.mid = it.mid) then
      insert into reactions (room_id, mid, emoji, user_id) values (it.room_id, it.mid, it.emoji, it.user_id) on conflict do nothing;
    end if;
  end loop;
  return query
  update reaction_counts c set changed_at = now(), counts = coalesce(
      (select jsonb_object_agg(x.emoji, x.n) from
        (select x.emoji, count(*) as n from reactions x where x.room_id = c.room_id and x.mid = c.mid group by x.emoji) x), '{}')
  from (select distinct g.room_id, g.mid from unnest(in_rooms, in_mids) g(room_id, mid)) g
  where c.room_id = g.room_id and c.mid = g.mid
  returning c.room_id, c.mid, c.counts;
end $$;
`;
