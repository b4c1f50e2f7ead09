-- The end of a request, once: what it did not use goes back to its lease, and its usage is appended for billing-service.
-- Again, it changes nothing and answers the same, and that it was not the first; but who was given up for dead and lives after all says what was used in truth: that is
-- appended beside what was assumed.
-- KEYS[1] the organization's lease for all its requests  [2] the one for requests of this model  [3] flights of the shard  [4] this flight
--   [5] usage stream of the shard  [6..] sums to be corrected
-- ARGV[1] request  [2] lease it was admitted on  [3] what was reserved  [4] what it turned out to cost
--   [5] usage event, or '' when the call was not made  [6] traceparent  [7] milliseconds that the answer is kept
--   [8] 'posted' when billing-service has the usage already: its lease takes nothing back; 'abandoned' when it is assumed; 'again' when
--       it may have been settled before, longer ago than is remembered: what is not known is then neither counted nor taken once more
--   [9] names of the sums of money, appended too
--   then for each sum: what was used less what was counted at the admission, and what was used
local function append(taken)
  redis.call('XADD', KEYS[5], '*', 'event', ARGV[5], 'taken_micros', taken, 'traceparent', ARGV[6], 'sums', ARGV[9])
end
-- A sum whose time is over begins anew without this request.
local function correct(index, more)
  if redis.call('EXISTS', KEYS[index]) == 1 then
    redis.call('INCRBY', KEYS[index], more)
  end
end
local how = ARGV[8]
local flight = redis.call('HMGET', KEYS[4], 'taken', 'cost', 'lease', 'abandoned')
if flight[1] then
  if flight[4] and ARGV[5] ~= '' and (how == '' or how == 'again') then
    redis.call('HDEL', KEYS[4], 'abandoned')
    append('0')
    for index = 6, #KEYS do
      local assumed = redis.call('HGET', KEYS[4], 'used:' .. KEYS[index])
      if assumed then
        correct(index, string.format('%.0f', ARGV[11 + (index - 6) * 2] - assumed))
      end
    end
  end
  return {flight[1], 0}
end
-- What this request took of money and sums is known; or it is not known, and was not settled before either.
local sure = flight[2] or (ARGV[5] ~= '' and how ~= 'again')
local reserved, price = tonumber(ARGV[3]), tonumber(ARGV[4])
local taken = reserved
local lease = flight[3] or ARGV[2]
local at = redis.call('HGET', KEYS[1], 'id') == lease and KEYS[1] or redis.call('HGET', KEYS[2], 'id') == lease and KEYS[2]
if how ~= 'posted' and at then
  -- A flight that the server has forgotten (the end of its log was lost) has its money in the lease again: then the price is due.
  -- Zero less it, since a minus before zero is '-0', which is no number to the server.
  local back = flight[2] and reserved - price or 0 - price
  -- A call that was not made and is not known has taken nothing.
  if sure then
    redis.call('HINCRBY', at, 'remaining', string.format('%.0f', back))
  end
  taken = price
end
local answer = string.format('%.0f', taken)
redis.call('DEL', KEYS[4])
redis.call('HSET', KEYS[4], 'taken', answer)
redis.call('PEXPIRE', KEYS[4], ARGV[7])
redis.call('ZREM', KEYS[3], ARGV[1])
if ARGV[5] ~= '' and how ~= 'posted' then
  append(answer)
end
if how == 'abandoned' then
  redis.call('HSET', KEYS[4], 'abandoned', '1')
end
for index = 6, #KEYS do
  -- A flight that is not known is in no sum either: not what it was counted for, and of a call that was not made, nothing.
  local argument = 10 + (index - 6) * 2
  if sure then
    correct(index, flight[2] and ARGV[argument] or ARGV[argument + 1])
  end
  if how == 'abandoned' then
    redis.call('HSET', KEYS[4], 'used:' .. KEYS[index], ARGV[argument + 1])
  end
end
return {answer, 1}
