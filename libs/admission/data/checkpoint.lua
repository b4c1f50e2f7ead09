-- What a request has used so far, and what it had at the note before: kept only while it is in flight.
-- KEYS[1] this flight  ARGV[1] usage
if redis.call('HEXISTS', KEYS[1], 'note') == 0 then
  return 0
end
-- The same again (its answer was lost) is no other note.
local before = redis.call('HGET', KEYS[1], 'checkpoint')
if not before then
  redis.call('HSET', KEYS[1], 'checkpoint_before', '{}')
elseif before ~= ARGV[1] then
  redis.call('HSET', KEYS[1], 'checkpoint_before', before)
end
redis.call('HSET', KEYS[1], 'checkpoint', ARGV[1])
return 1
