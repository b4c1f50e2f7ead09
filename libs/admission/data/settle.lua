-- The end of a request, once: what it did not use goes back to its lease, and its usage is appended for billing-service.
-- Again, it changes nothing and answers the same.
-- KEYS[1] the organization's lease  [2] flights of the shard  [3] this flight  [4] usage stream of the shard  [5..] sums to be corrected
-- ARGV[1] request  [2] lease it was admitted on  [3] what was reserved  [4] what it turned out to cost
--   [5] usage event, or '' when the call was not made  [6] traceparent  [7] milliseconds that the answer is kept
--   [8] 'posted' when billing-service has the usage already: its lease takes nothing back  [9] names of the sums of money, appended too
--   then for each sum: what was used less what was counted at the admission, and what was used
local flight = redis.call('HMGET', KEYS[3], 'taken', 'cost', 'lease')
if flight[1] then
  return flight[1]
end
local reserved, price = tonumber(ARGV[3]), tonumber(ARGV[4])
local taken = reserved
if ARGV[8] ~= 'posted' and redis.call('HGET', KEYS[1], 'id') == (flight[3] or ARGV[2]) then
  -- A flight that the server has forgotten (the end of its log was lost) has its money in the lease again: then the price is due.
  -- Zero less it, since a minus before zero is '-0', which is no number to the server.
  local back = flight[2] and reserved - price or 0 - price
  -- A call that was not made and is not known has taken nothing.
  if flight[2] or ARGV[5] ~= '' then
    redis.call('HINCRBY', KEYS[1], 'remaining', string.format('%.0f', back))
  end
  taken = price
end
local answer = string.format('%.0f', taken)
redis.call('DEL', KEYS[3])
redis.call('HSET', KEYS[3], 'taken', answer)
redis.call('PEXPIRE', KEYS[3], ARGV[7])
redis.call('ZREM', KEYS[2], ARGV[1])
if ARGV[5] ~= '' and ARGV[8] ~= 'posted' then
  redis.call('XADD', KEYS[4], '*', 'event', ARGV[5], 'taken_micros', answer, 'traceparent', ARGV[6], 'sums', ARGV[9])
end
for index = 5, #KEYS do
  -- A flight that is not known is in no sum either: not what it was counted for, and of a call that was not made, nothing.
  local at = 10 + (index - 5) * 2
  local more = flight[2] and ARGV[at] or (ARGV[5] ~= '' and ARGV[at + 1])
  -- A sum whose time is over begins anew without this request.
  if more and redis.call('EXISTS', KEYS[index]) == 1 then
    redis.call('INCRBY', KEYS[index], more)
  end
end
return answer
