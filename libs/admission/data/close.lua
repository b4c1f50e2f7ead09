-- Ends a lease: nothing is admitted on it from now on. Answers what was left and the last deadline of its requests, again the same.
-- KEYS[1] the organization's lease  ARGV[1] lease
local closed = 'closed:' .. ARGV[1]
local lease = redis.call('HMGET', KEYS[1], 'id', 'remaining', closed, 'last_deadline')
if lease[1] == ARGV[1] then
  redis.call('HSET', KEYS[1], closed, lease[2])
  redis.call('HDEL', KEYS[1], 'id', 'epoch', 'remaining', 'funded', 'low', 'until')
  return {lease[2], lease[4] or '0'}
end
return {lease[3], lease[4] or '0'}
