-- Drops the memory of a closed lease. Where no other is remembered, the last deadline goes by itself: nothing of it is in flight by then.
-- KEYS[1] the organization's lease  ARGV[1] lease  [2] milliseconds until then
redis.call('HDEL', KEYS[1], 'closed:' .. ARGV[1])
if redis.call('HLEN', KEYS[1]) == redis.call('HEXISTS', KEYS[1], 'last_deadline') then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
