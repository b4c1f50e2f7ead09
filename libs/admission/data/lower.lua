-- Takes off a sum what turned out to be free. A sum whose time is over is not begun anew.
-- KEYS[1] the sum  ARGV[1] how much
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('DECRBY', KEYS[1], ARGV[1])
end
return 0
