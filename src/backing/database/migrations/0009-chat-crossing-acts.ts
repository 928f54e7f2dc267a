/** Moderation acts that happen at the same time as a message or as another moderation act. */
export const chatCrossingActs = `
-- A function for what chat_archive is one for: each statement looks again after the lock. It shares the lock of the room with those who store messages; who
-- lifts held messages of somebody takes it alone, so that what is held is there before that, or sees the ban.
-- 'held': it waits from now on. 'waiting': since before. 'approved', 'denied': it was decided about before. 'banned': its author is, or the account is deleted. 'full': too many wait.
-- 'gone': the message that it is held instead of is not there any more.
create function chat_hold(
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

-- Erased once; it is done a second time, later.
alter table chat_erasures add column erased_at timestamptz;

-- A pinned message is shown out of the memory of every process: they are told when it is erased, by whatever erases it.
create function chat_pin_is_erased() returns trigger language plpgsql as $$
begin
  if exists (select from room_pins p where p.room_id = new.room_id and p.mid = new.mid) then
    perform chat_has_changed('rules', new.room_id, null, null, null);
  end if;
  return null;
end $$;
create constraint trigger messages_change_pins after update of type on messages deferrable initially deferred
  for each row when (old.type = 'msg' and new.type = 'gone') execute function chat_pin_is_erased();
`;
