// What a context has in redis:
//
//   kai:{AGENT}:values   hash: key → version (8 bytes), expiry (8 bytes, ms; 0: never), flags (1 byte), value
//   kai:{AGENT}:keys     sorted set of the keys, all with score 0: redis orders them by their bytes
//   kai:{AGENT}:expiry   sorted set of the keys that expire, by their expiry
//   kai:{AGENT}:meta     hash: generation, entries, bytes, expiring, version (the last one given), changes
//
// The braces are redis cluster's: all keys of an agent are in one place. Nothing has redis' own expiry: time is
// kaid's. `generation` is random, of the context's first write; kaid remembers it, and how many changes it knows of:
// where redis has another, or fewer, or counters that are not those of what is there, it has lost something.
//
// A write that fails for want of memory (OOM) fails at the first of its redis.call, and has changed nothing.
#include "supervisor/memory/redis_script.h"

namespace kai {

// Arguments: operation, generation, known (1: the context has been written to), changes (that kaid knows of), now (ms),
// floor (no version up to it is given), then the operation's own. Keys: the context's four, then the operation's own.
//
// Answer: status, exists (1: there is a context), entries, bytes, version, changes, due (1: more has expired than was
// removed), then what belongs to the status.
const std::string_view kRedisScript = R"lua(
local values, keys, expiry, meta = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local operation, generation, known = ARGV[1], ARGV[2], ARGV[3] == '1'
local known_changes, now, floor = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local own = 6           -- arguments before the operation's own
local HEADER = 17       -- bytes of a record before its value
local SEALED = 2        -- flag: the value was encrypted, which made it longer
local SEAL_BYTES = 40
local STEP = 1000       -- keys that one redis command is given
local call = redis.call

local m = call('HMGET', meta, 'generation', 'entries', 'bytes', 'expiring', 'version', 'changes')
local exists = m[1] and 1 or 0
local entries, bytes, expiring = tonumber(m[2] or 0), tonumber(m[3] or 0), tonumber(m[4] or 0)
local version, changes = math.max(tonumber(m[5] or 0), floor), tonumber(m[6] or known_changes)
local due = 0

local function answer(status, ...)
  return {status, exists, entries, bytes, version, changes, due, ...}
end

-- What is missing; nil: nothing.
local function lost()
  if exists == 0 then
    if known then return 'everything' end
    return call('EXISTS', values, keys, expiry) > 0 and 'its counters' or nil
  end
  if call('HLEN', values) ~= entries then return 'values' end
  if call('ZCARD', keys) ~= entries then return 'the order of the keys' end
  if call('ZCARD', expiry) ~= expiring then return 'the times of expiry' end
  if (operation ~= 'open' or known) and m[1] ~= generation then return 'what was written last: it has another content' end
  if changes < known_changes then return 'the last changes: it has an older content' end
  return nil
end

local function head(record)
  local record_version, expires, flags = struct.unpack('>I8I8B', record)
  return record_version, expires, flags
end

-- As it counts for the quota.
local function size(key, value_bytes, flags)
  local sealed = math.floor(flags / SEALED) % 2 == 1
  return #key + value_bytes - (sealed and SEAL_BYTES or 0)
end

local function keep_counters()
  changes = changes + 1
  exists = 1
  call('HSET', meta, 'generation', generation, 'entries', entries, 'bytes', bytes, 'expiring', expiring,
       'version', version, 'changes', changes)
end

-- Forgets at most so many of the expired, and not much more than 16 MiB of them.
local function sweep(most)
  if expiring == 0 then return end
  local gone = call('ZRANGEBYSCORE', expiry, '-inf', now, 'LIMIT', 0, most + 1)
  local count, read = 0, 0
  while count < #gone and count < most and read < 16777216 do
    count = count + 1
    local record = call('HGET', values, gone[count])
    if record then
      local _, _, flags = head(record)
      bytes = bytes - size(gone[count], #record - HEADER, flags)
      read = read + #record
    end
  end
  for from = 1, count, STEP do
    local to = math.min(from + STEP - 1, count)
    call('HDEL', values, unpack(gone, from, to))
    call('ZREM', keys, unpack(gone, from, to))
    call('ZREM', expiry, unpack(gone, from, to))
  end
  entries, expiring = entries - count, expiring - count
  due = #gone > count and 1 or 0
  if count > 0 then keep_counters() end
end

-- Its own: the most bytes of values together, then keys.
local function get()
  local most, sum, found = tonumber(ARGV[own + 1]), 0, {}
  for i = own + 2, #ARGV do
    local record = call('HGET', values, ARGV[i])
    if record then
      local _, expires, flags = head(record)
      if expires > 0 and expires <= now then
        record = false
      else
        sum = sum + size('', #record - HEADER, flags)
        if sum > most then return answer('TOO_LARGE') end
      end
    end
    found[#found + 1] = record
  end
  return answer('OK', unpack(found))
end

-- Its own: the most bytes and entries, then for each write key, expiry, flags, condition, value. A condition is empty,
-- 'absent', or a version.
local function set()
  local max_bytes, max_entries = tonumber(ARGV[own + 1]), tonumber(ARGV[own + 2])
  local first, each = own + 3, 5
  local before, more_bytes, more_entries  -- before: the expiry of what is replaced; false: nothing is

  local function plan()
    before, more_bytes, more_entries = {}, 0, 0
    for at = first, #ARGV, each do
      local key, condition = ARGV[at], ARGV[at + 3]
      local record = call('HGET', values, key)
      local is = 0
      if record then
        local record_version, expires, flags = head(record)
        if expires == 0 or expires > now then is = record_version end
        more_bytes = more_bytes - size(key, #record - HEADER, flags)
        before[#before + 1] = expires
      else
        more_entries = more_entries + 1
        before[#before + 1] = false
      end
      more_bytes = more_bytes + size(key, #ARGV[at + 4], tonumber(ARGV[at + 2]))
      local holds = condition == '' or (condition == 'absent' and is == 0) or (is > 0 and tonumber(condition) == is)
      if not holds then return key, is end
    end
  end
  local function too_much()
    return (more_bytes > 0 and bytes + more_bytes > max_bytes)
      or (more_entries > 0 and entries + more_entries > max_entries)
  end

  sweep(32)
  local key, is = plan()
  if key then return answer('CONFLICT', key, is) end
  if too_much() and due == 1 then
    sweep(10000)
    plan()
  end
  if too_much() then
    if due == 1 then return answer('SWEEPING') end
    return answer('QUOTA', more_bytes, more_entries)
  end

  local first_version = version + 1
  if #ARGV < first then return answer('OK', first_version) end
  for at = first, #ARGV, each do
    local name, expires, was = ARGV[at], tonumber(ARGV[at + 1]), before[(at - first) / each + 1]
    version = version + 1
    call('HSET', values, name, struct.pack('>I8I8B', version, expires, tonumber(ARGV[at + 2])) .. ARGV[at + 4])
    if not was then call('ZADD', keys, 0, name) end
    if expires > 0 then
      call('ZADD', expiry, ARGV[at + 1], name)
      if not was or was == 0 then expiring = expiring + 1 end
    elseif was and was > 0 then
      call('ZREM', expiry, name)
      expiring = expiring - 1
    end
  end
  entries, bytes = entries + more_entries, bytes + more_bytes
  keep_counters()
  return answer('OK', first_version)
end

-- Its own: the key.
local function delete()
  local key = ARGV[own + 1]
  local record = call('HGET', values, key)
  if not record then return answer('OK', 0) end
  local _, expires, flags = head(record)
  call('HDEL', values, key)
  call('ZREM', keys, key)
  if expires > 0 then
    call('ZREM', expiry, key)
    expiring = expiring - 1
  end
  entries, bytes = entries - 1, bytes - size(key, #record - HEADER, flags)
  keep_counters()
  return answer('OK', (expires == 0 or expires > now) and 1 or 0)
end

local function expired(key)
  if expiring == 0 then return false end
  local expires = call('ZSCORE', expiry, key)
  return expires and tonumber(expires) <= now
end

-- Its own: bounds as ZRANGEBYLEX has them, and how many keys. The answer has one more where there are more; where the
-- expired between them are too many for one run, an answer SWEEPING says so.
local function list()
  local from, to, limit = ARGV[own + 1], ARGV[own + 2], tonumber(ARGV[own + 3])
  local found, looked_at = {}, 0
  repeat
    local batch = call('ZRANGEBYLEX', keys, from, to, 'LIMIT', 0, STEP + 1)
    for _, key in ipairs(batch) do
      if not expired(key) then found[#found + 1] = key end
      if #found > limit then return answer('OK', unpack(found)) end
    end
    looked_at = looked_at + #batch
    if #batch > 0 then from = '(' .. batch[#batch] end
    if looked_at > 20000 then
      due = 1
      return answer('SWEEPING')
    end
  until #batch <= STEP
  return answer('OK', unpack(found))
end

-- Its own: the lower bound, how many bytes. Answers key and record in turns, at most 500, and first whether there are
-- more.
local function page()
  local most, sum, found = tonumber(ARGV[own + 2]), 0, {}
  local batch = call('ZRANGEBYLEX', keys, ARGV[own + 1], '+', 'LIMIT', 0, 501)
  local count = 0
  while count < #batch and count < 500 and sum < most do
    count = count + 1
    local record = call('HGET', values, batch[count])
    found[#found + 1] = batch[count]
    found[#found + 1] = record
    sum = sum + #record
  end
  return answer('OK', count < #batch and 1 or 0, unpack(found))
end

-- Keys 5 to 7: values, keys and expiry that will take the place of what is there. Its own: 1 for the first; then key,
-- version, expiry, flags, value.
local function stage()
  if ARGV[own + 1] == '1' then call('UNLINK', KEYS[5], KEYS[6], KEYS[7]) end
  for at = own + 2, #ARGV, 5 do
    local key, expires = ARGV[at], tonumber(ARGV[at + 2])
    call('HSET', KEYS[5], key, struct.pack('>I8I8B', tonumber(ARGV[at + 1]), expires, tonumber(ARGV[at + 3])) .. ARGV[at + 4])
    call('ZADD', KEYS[6], 0, key)
    if expires > 0 then call('ZADD', KEYS[7], expires, key) end
  end
  return answer('OK')
end

-- Its own: entries, bytes, expiring. TWICE: fewer were staged, as a key was there more than once.
local function replace()
  local count, sum, expire = tonumber(ARGV[own + 1]), tonumber(ARGV[own + 2]), tonumber(ARGV[own + 3])
  if call('HLEN', KEYS[5]) ~= count or call('ZCARD', KEYS[6]) ~= count or call('ZCARD', KEYS[7]) ~= expire then
    return answer('TWICE')
  end
  entries, bytes, expiring = count, sum, expire
  call('UNLINK', values, keys, expiry, meta)
  for i = 1, 3 do
    if call('EXISTS', KEYS[4 + i]) == 1 then call('RENAME', KEYS[4 + i], KEYS[i]) end
  end
  changes = math.max(changes, known_changes)
  keep_counters()
  return answer('OK')
end

-- Keys 5 to 8: where what is left of a damaged context goes. Answers the generation.
local function open()
  local missing = lost()
  if not missing then return answer('OK', m[1] or '') end
  for i = 1, 4 do
    call('UNLINK', KEYS[4 + i])
    if call('EXISTS', KEYS[i]) == 1 then call('RENAME', KEYS[i], KEYS[4 + i]) end
  end
  exists, entries, bytes = 0, 0, 0
  return answer('LOST', missing)
end

if operation == 'clear' then
  call('UNLINK', unpack(KEYS))
  exists, entries, bytes = 0, 0, 0
  return answer('OK')
end
if operation == 'open' then return open() end
if operation == 'stage' then return stage() end
if operation == 'replace' then return replace() end

local missing = lost()
if missing then return answer('LOST', missing) end
if operation == 'get' then return get() end
if operation == 'set' then return set() end
if operation == 'delete' then return delete() end
if operation == 'list' then return list() end
if operation == 'page' then return page() end
if operation == 'sweep' then
  sweep(1000)
  return answer('OK')
end
return redis.error_reply('ERR no such operation')
)lua";

}  // namespace kai
