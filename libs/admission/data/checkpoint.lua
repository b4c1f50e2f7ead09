-- What a request has used so far; kept only while it is in flight.
-- KEYS[1] this flight  ARGV[1] usage
if redis.call('HEXISTS', KEYS[1], 'note') == 0 then
  return 0
end
redis.call('HSET', KEYS[1], 'checkpoint', ARGV[1])
return 1
