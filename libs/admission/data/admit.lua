-- May this request begin? All limits first, then the money. A request that no limit refuses is counted in the logs of requests, also
-- when money does not reach; nothing else is written unless all of it is.
-- KEYS[1] the organization's lease for all its requests  [2] the one for requests of this model  [3] flights of the shard, by deadline
--   [4] this flight  [5..] one for each limit
-- ARGV[1] request  [2] worst-case cost  [3] deadline, milliseconds  [4] note  [5] milliseconds that the note is kept
--   [6] now, by the clock of whoever asks (leases end by that of billing-service; the logs of limits go by this server's)
--   then for each limit: 'log' or 'sum', most, amount, milliseconds (the window of a log; until the sum begins anew), and what a sum
--   comes to at least
if redis.call('EXISTS', KEYS[4]) == 1 then
  return {'duplicate'}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function limit(index)
  local at = 6 + (index - 1) * 5
  return KEYS[4 + index], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
end
for index = 1, #KEYS - 4 do
  local key, kind, most, amount, window, least = limit(index)
  if kind == 'log' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now - window)
    -- A request that was here before, when money did not reach, has its entry: that one refuses others and not itself.
    if redis.call('ZCARD', key) >= most and not redis.call('ZSCORE', key, ARGV[1]) then
      local oldest = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
      return {'limited', index, oldest[2] and (oldest[2] + window - now) or window}
    end
  elseif math.max(tonumber(redis.call('GET', key) or '0'), least) + amount > most then
    return {'limited', index, window}
  end
end
-- Before money is looked at: who has none is held to these limits too. Asking again moves the one entry of a request and makes no other.
for index = 1, #KEYS - 4 do
  local key, kind, _, _, window = limit(index)
  if kind == 'log' then
    redis.call('ZADD', key, now, ARGV[1])
    redis.call('PEXPIRE', key, window)
  end
end
local cost = tonumber(ARGV[2])
local missing = {'short'}
local function reaches(key)
  local lease = redis.call('HMGET', key, 'id', 'remaining', 'funded', 'low', 'until')
  if not lease[1] or tonumber(lease[5]) <= tonumber(ARGV[6]) then
    lease = {'', '0', '0'}
  elseif tonumber(lease[2]) >= cost then
    return lease
  end
  missing[#missing + 1] = lease[1]
  missing[#missing + 1] = lease[3]
  missing[#missing + 1] = string.format('%.0f', cost - tonumber(lease[2]))
end
-- Nearly always the first reaches; the other is there only while credit is left that may pay for this model alone.
local at, lease = KEYS[1], reaches(KEYS[1])
if not lease then
  at, lease = KEYS[2], reaches(KEYS[2])
end
if not lease then
  return missing
end
for index = 1, #KEYS - 4 do
  local key, kind, _, amount, window, least = limit(index)
  if kind == 'sum' then
    local missing = math.max(least - tonumber(redis.call('GET', key) or '0'), 0)
    redis.call('INCRBY', key, string.format('%.0f', missing + amount))
    redis.call('PEXPIRE', key, window)
  end
end
local left = redis.call('HINCRBY', at, 'remaining', string.format('%.0f', 0 - cost))
if tonumber(redis.call('HGET', at, 'last_deadline') or '0') < tonumber(ARGV[3]) then
  redis.call('HSET', at, 'last_deadline', ARGV[3])
end
redis.call('HSET', KEYS[4], 'note', ARGV[4], 'lease', lease[1], 'cost', ARGV[2])
redis.call('PEXPIRE', KEYS[4], ARGV[5])
redis.call('ZADD', KEYS[3], ARGV[3], ARGV[1])
return {'admitted', lease[1], lease[3], left < tonumber(lease[4]) and 1 or 0, at == KEYS[1] and 0 or 1}
