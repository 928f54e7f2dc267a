import { createHash } from 'node:crypto';
import { IDLE_MS, KEPT, KEY_MS, MAX_UNARCHIVED, UNIQUE_HASHES, UNIQUE_MS } from './room-log.js';

/**
 * The steps of the log that Redis executes atomically, as Lua scripts. A room has these keys:
 *
 * - its record, a hash: `e` epoch, `h` head, `a` archived, `t` time of the newest entry, `r`
 *   identity of the server (see `COMMON`), `bt`, `bm` points of the room and their time, `ks`, `qs`
 *   when the current hashes of keys and of texts were begun;
 * - `:log`, a list that ends with the entry at `head`: an offset is a position in it, and an entry
 *   can be replaced, which a Redis stream cannot do;
 * - `:k`, `:kp` message keys and `:q`, `:qp` texts of unique mode, each with its time: the first
 *   hash is being filled while the second, older one expires;
 * - `:a` archived offsets above one that is not archived;
 * - `:u:` and an account: its points and their time; expires when it no longer matters;
 * - `:b:` and an account: until when it is barred, and why if it is not a ban.
 *
 * An entry is `time type key payload`; when it is published, `epoch offset ` comes before it. Rooms
 * are spread over 256 slots. Each slot also has a sorted set of its rooms with unarchived entries,
 * so that the set is updated in the same step.
 */
export interface Script {
  readonly lua: string;
  readonly sha: string;
}

/**
 * Functions that every script has. `server` returns the identity of the server's history: Redis
 * makes a new one at every start and at every promotion of a replica. A record with another
 * identity comes from a snapshot or from a former master, and its end may be lost. The script asks
 * the server itself (3 µs), since no caller can know which server will execute the step.
 */
const COMMON = `
local function server() return string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') end
local function time(shift)
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(shift)
end
-- Remembers a name for at least forMs, or until max other names came after it. Returns when the
-- current hash was begun.
local function remember(current, previous, since, name, value, now, forMs, max)
  local begin = not since or now - since >= forMs or (max and redis.call('HLEN', current) >= max)
  if begin and redis.call('EXISTS', current) == 1 then redis.call('RENAME', current, previous)
  elseif begin then redis.call('DEL', previous) end
  redis.call('HSET', current, name, value)
  if not begin then return since end
  redis.call('PEXPIRE', current, 2 * forMs + 60000)
  return now
end
`;

/**
 * Makes a script. `flags` are Redis' own ("Script flags"). When the memory is full, Redis refuses a
 * script without flags as a whole. It still runs `no-writes` and `allow-oom` scripts, because steps
 * that free memory must be possible then.
 */
const script = (flags: '' | 'no-writes' | 'allow-oom', body: string): Script => {
  const lua = `#!lua${flags && ` flags=${flags}`}\n${COMMON}${body.trim()}\n`;
  return { lua, sha: createHash('sha1').update(lua).digest('hex') };
};

/**
 * KEYS: record :log :k :kp :q :qp :u: waiting :b:. ARGV: room, shift, epoch, "type key payload",
 * key; with rules also perS, burst, roomPerS, slowMs, hash.
 */
export const APPEND = script(
  '',
  `
local room = redis.call('HMGET', KEYS[1], 'e', 'r', 'h', 'a', 't', 'bt', 'bm', 'ks', 'qs')
if room[1] ~= ARGV[3] or room[2] ~= server() then return {'reopen'} end
local now = time(ARGV[2])

local key = ARGV[5]
if key ~= '' then
  local known = redis.call('HGET', KEYS[3], key) or redis.call('HGET', KEYS[4], key)
  if known then
    local offset, at = string.match(known, '(%d+) (%d+)')
    if now - at < ${KEY_MS} then return {'duplicate', tonumber(offset), tonumber(at)} end
  end
end

local bar = ARGV[6] and redis.call('GET', KEYS[9])
if bar then
  local untilMs, why = string.match(bar, '^(%d+) ?(%S*)')
  if tonumber(untilMs) > now then return {'barred', 0, 0, why ~= '' and why or 'banned'} end
end
local head, archived = tonumber(room[3]), tonumber(room[4])
if head - archived >= ${MAX_UNARCHIVED} then return {'busy'} end

local written = {}
if ARGV[6] then
  local perS, burst, roomPerS, slowMs, hash = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10]
  -- A time in the future means that the clock was set back. It counts as now, so that nobody has to
  -- wait for it.
  local function tokens(had, at, perS, burst) return math.min(burst, had + (now - at) / 1000 * perS) end
  local function wait(tokens, perS) if tokens >= 1 - 1e-9 then return 0 end return math.ceil((1 - tokens) / perS * 1000) end

  local own = burst
  local account = redis.call('GET', KEYS[7])
  if account then
    local had, at, untilMs = string.match(account, '(%S+) (%S+) (%S+)')
    had, at, untilMs = tonumber(had), tonumber(at), tonumber(untilMs)
    if at > now then
      untilMs = now + untilMs - at
      at = now
      redis.call('SET', KEYS[7], string.format('%.6f %.0f %.0f', had, at, untilMs), 'KEEPTTL')
    end
    if now < untilMs then
      if at + slowMs > now then return {'slow_mode', at + slowMs - now} end
      own = tokens(had, at, perS, burst)
    end
  end
  if hash ~= '' then
    local said = redis.call('HGET', KEYS[5], hash) or redis.call('HGET', KEYS[6], hash)
    if said and now - said < ${UNIQUE_MS} then return {'not_unique', math.max(1, said + ${UNIQUE_MS} - now)} end
  end
  local roomBurst = math.max(1, roomPerS)
  local all = roomBurst
  if room[6] then
    local at = tonumber(room[7])
    if at > now then
      at = now
      redis.call('HSET', KEYS[1], 'bm', at)
    end
    all = tokens(tonumber(room[6]), at, roomPerS, roomBurst)
  end
  local waitMs = math.max(wait(own, perS), wait(all, roomPerS))
  if waitMs > 0 then return {'rate_limited', waitMs} end

  local mattersMs = math.max(slowMs, math.ceil(burst / perS * 1000))
  redis.call('SET', KEYS[7], string.format('%.6f %.0f %.0f', own - 1, now, now + mattersMs), 'PX', math.max(1, mattersMs))
  written = {'bt', string.format('%.6f', all - 1), 'bm', now}
  if hash ~= '' then
    written[5] = 'qs'
    written[6] = remember(KEYS[5], KEYS[6], room[9] and tonumber(room[9]), hash, now, now, ${UNIQUE_MS}, ${UNIQUE_HASHES})
  end
end

local offset = head + 1
local at = math.max(now, tonumber(room[5]))
local entry = string.format('%.0f ', at) .. ARGV[4]
if key ~= '' then
  written[#written + 1] = 'ks'
  written[#written + 1] = remember(KEYS[3], KEYS[4], room[8] and tonumber(room[8]), key, string.format('%.0f %.0f', offset, at), now, ${KEY_MS})
end
redis.call('RPUSH', KEYS[2], entry)
redis.call('HSET', KEYS[1], 'h', offset, 't', at, unpack(written))
if head == archived then
  redis.call('ZADD', KEYS[8], now, ARGV[1])
  redis.call('PERSIST', KEYS[1])
  redis.call('PERSIST', KEYS[2])
end
redis.call('SPUBLISH', KEYS[1], string.format('%s %.0f ', ARGV[3], offset) .. entry)
return {'appended', offset, at}
`,
);

/**
 * KEYS: record :log :k :kp :q :qp :a waiting. ARGV: room, shift, epoch, head, time; then for each
 * entry its key, its time and the entry.
 */
export const OPEN = script(
  '',
  `
local epoch = redis.call('HGET', KEYS[1], 'e')
if epoch and tonumber(epoch) >= tonumber(ARGV[3]) then return 0 end
for i = 1, 7 do redis.call('DEL', KEYS[i]) end
local now = time(ARGV[2])
local offset = tonumber(ARGV[4]) - (#ARGV - 5) / 3
for i = 6, #ARGV, 3 do
  offset = offset + 1
  redis.call('RPUSH', KEYS[2], ARGV[i + 2])
  if ARGV[i] ~= '' and now - ARGV[i + 1] < ${KEY_MS} then
    redis.call('HSET', KEYS[3], ARGV[i], string.format('%.0f %s', offset, ARGV[i + 1]))
  end
end
redis.call('HSET', KEYS[1], 'e', ARGV[3], 'r', server(), 'h', ARGV[4], 'a', ARGV[4], 't', ARGV[5])
if redis.call('PEXPIRE', KEYS[3], ${2 * KEY_MS + 60_000}) == 1 then redis.call('HSET', KEYS[1], 'ks', now) end
redis.call('PEXPIRE', KEYS[1], ${IDLE_MS})
redis.call('PEXPIRE', KEYS[2], ${IDLE_MS})
redis.call('ZREM', KEYS[8], ARGV[1])
return 1
`,
);

/** KEYS: record :log. ARGV: after, limit. */
export const READ = script(
  'no-writes',
  `
local room = redis.call('HMGET', KEYS[1], 'e', 'r', 'h', 'a')
if not room[1] or room[2] ~= server() then return false end
local head = tonumber(room[3])
local first = head - redis.call('LLEN', KEYS[2]) + 1
local from, limit = math.max(tonumber(ARGV[1]) + 1, first), tonumber(ARGV[2])
local entries = {}
if limit > 0 and from <= head then entries = redis.call('LRANGE', KEYS[2], from - first, from - first + limit - 1) end
return {tonumber(room[1]), head, tonumber(room[4]), from, entries}
`,
);

/** KEYS: records. Returns 'epoch head' for each, or '' when the room is not held. */
export const PLACES = script(
  'no-writes',
  `
local own, places = server(), {}
for i, record in ipairs(KEYS) do
  local room = redis.call('HMGET', record, 'e', 'r', 'h')
  places[i] = room[1] and room[2] == own and room[1] .. ' ' .. room[3] or ''
end
return places
`,
);

/**
 * KEYS: record :log :a waiting. ARGV: room, shift, epoch, the offset up to which everything is
 * archived (or ''), single offsets.
 */
export const ARCHIVED = script(
  'allow-oom',
  `
local room = redis.call('HMGET', KEYS[1], 'e', 'r', 'h', 'a')
if room[1] ~= ARGV[3] or room[2] ~= server() then return 0 end
local head, before = tonumber(room[3]), tonumber(room[4])
local archived = before
if ARGV[4] ~= '' then archived = math.max(before, math.min(tonumber(ARGV[4]), head)) end
for i = 5, #ARGV do
  local offset = tonumber(ARGV[i])
  if offset == archived + 1 and offset <= head then archived = offset
  elseif offset > archived and offset <= head then redis.call('SADD', KEYS[3], ARGV[i]) end
end
while redis.call('SREM', KEYS[3], string.format('%.0f', archived + 1)) == 1 do archived = archived + 1 end
if archived == before then return 0 end
redis.call('HSET', KEYS[1], 'a', archived)
local first = head - redis.call('LLEN', KEYS[2]) + 1
local drop = math.min(archived, head - ${KEPT}) - first + 1
if drop > 0 then redis.call('LTRIM', KEYS[2], drop, -1) end
if archived < head then
  redis.call('ZADD', KEYS[4], time(ARGV[2]), ARGV[1])
else
  redis.call('ZREM', KEYS[4], ARGV[1])
  redis.call('DEL', KEYS[3])
  redis.call('PEXPIRE', KEYS[1], ${IDLE_MS})
  redis.call('PEXPIRE', KEYS[2], ${IDLE_MS})
end
return 1
`,
);

/**
 * KEYS: waiting sets. ARGV: shift, older than, limit, and for each set the prefix of its records'
 * names. The records are in the slot of their set.
 */
export const UNARCHIVED = script(
  'allow-oom',
  `
local found = {}
local own = server()
local untilMs = time(ARGV[1]) - ARGV[2]
for i, waiting in ipairs(KEYS) do
  local left = ARGV[3] - #found
  if left <= 0 then return found end
  for _, id in ipairs(redis.call('ZRANGE', waiting, '-inf', untilMs, 'BYSCORE', 'LIMIT', 0, left)) do
    local room = redis.call('HMGET', ARGV[3 + i] .. id, 'e', 'r', 'h', 'a')
    if room[1] and room[2] == own and room[3] ~= room[4] then
      found[#found + 1] = {id, tonumber(room[1]), tonumber(room[4]), tonumber(room[3])}
    else
      -- The room is lost, with its unarchived entries. Its members learn this from the next epoch.
      redis.call('ZREM', waiting, id)
    end
  end
end
return found
`,
);

/** KEYS: record :log. ARGV: epoch, offset, type, payload. */
export const ERASE = script(
  'allow-oom',
  `
local room = redis.call('HMGET', KEYS[1], 'r', 'h', 'e')
if room[3] ~= ARGV[1] or room[1] ~= server() then return 0 end
local place = ARGV[2] - (room[2] - redis.call('LLEN', KEYS[2]) + 1)
local entry = place >= 0 and redis.call('LINDEX', KEYS[2], place)
if not entry then return 0 end
local at, key = string.match(entry, '^(%d+) %S+ (%S*) ')
redis.call('LSET', KEYS[2], place, at .. ' ' .. ARGV[3] .. ' ' .. key .. ' ' .. ARGV[4])
return 1
`,
);

/**
 * KEYS: :b:. ARGV: shift, for how long in ms, why. A ban is a number alone, because processes of an
 * older version read it so.
 */
export const BAR = script(
  '',
  `
local forMs = tonumber(ARGV[2])
if forMs > 0 then
  local why = ARGV[3] == 'banned' and '' or ' ' .. ARGV[3]
  redis.call('SET', KEYS[1], string.format('%.0f', time(ARGV[1]) + forMs) .. why, 'PX', forMs)
else redis.call('DEL', KEYS[1]) end
return 1
`,
);

/** KEYS: record :log :k :kp :q :qp :a waiting. ARGV: room. */
export const REMOVE = script(
  'allow-oom',
  `
for i = 1, 7 do redis.call('UNLINK', KEYS[i]) end
redis.call('ZREM', KEYS[8], ARGV[1])
return 1
`,
);

export const SCRIPTS: readonly Script[] = [APPEND, OPEN, READ, PLACES, ARCHIVED, UNARCHIVED, ERASE, BAR, REMOVE];
