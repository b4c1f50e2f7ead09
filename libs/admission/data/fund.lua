-- Fills a lease to what billing-service has put into it in all, so that a call which comes twice or late changes nothing.
-- Answers 'funded', 'closed' or 'lost', or 'superseded:' and the epoch of the later lease: where the database was restored and Redis was not,
-- nobody else knows how late that is. A replica that reads other answers brings the script that gives them.
-- KEYS[1] the organization's lease  [2] the shard's instance
-- ARGV[1] lease  [2] epoch  [3] all that was put into it  [4] what is low  [5] instance it was opened on  [6] '1' when it may be made here
--   [7] milliseconds of the epoch from which it admits nothing
local lease = redis.call('HMGET', KEYS[1], 'id', 'epoch', 'funded')
if redis.call('GET', KEYS[2]) ~= ARGV[5] then
  return 'lost'
end
if lease[1] == ARGV[1] then
  local more = tonumber(ARGV[3]) - tonumber(lease[3])
  if more > 0 then
    redis.call('HINCRBY', KEYS[1], 'remaining', string.format('%.0f', more))
    redis.call('HSET', KEYS[1], 'funded', ARGV[3], 'low', ARGV[4], 'until', ARGV[7])
  end
  return 'funded'
end
if redis.call('HEXISTS', KEYS[1], 'closed:' .. ARGV[1]) == 1 then
  return 'closed'
end
if lease[1] and tonumber(lease[2]) > tonumber(ARGV[2]) then
  return 'superseded:' .. lease[2]
end
if ARGV[6] ~= '1' then
  return 'lost'
end
if lease[1] then
  -- Its predecessor ends here; what is left of it is asked for by `close`.
  redis.call('HSET', KEYS[1], 'closed:' .. lease[1], redis.call('HGET', KEYS[1], 'remaining'))
end
-- `forget` had it go.
redis.call('PERSIST', KEYS[1])
redis.call('HSET', KEYS[1], 'id', ARGV[1], 'epoch', ARGV[2], 'funded', ARGV[3], 'remaining', ARGV[3], 'low', ARGV[4], 'until', ARGV[7])
return 'funded'
