"""What the server does for a `Publish` and for a `Swap`: a script each, so that it is one step and one round trip.

Each takes one key, so that it may run on a server of a cluster, and answers with the server's clock first, as TIME gives it.
Lua counts in doubles: microseconds since 1970 are whole in them until the year 2255.

Whatever else stands at a key is not believed: an entry that no `Publish` wrote is passed over, a version that no `Swap`
wrote is none. A key of another type is an error of the server's (WRONGTYPE).
"""

from __future__ import annotations

from typing import Final

PUBLISH: Final = """\
-- KEYS[1]: the board. ARGV: the member, its report ('' takes it off), for how many microseconds it stands, its sequence.
-- A field is a member, its value '<when it was published> <for how long> <sequence> <the report>'.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local function entry(stamp, ttl, sequence, report)
  return string.format('%.0f %.0f %.0f ', stamp, ttl, sequence) .. report
end
local standing = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^%d+ %d+ (%d+) ')
if not standing or tonumber(standing) <= tonumber(ARGV[4]) then
  if ARGV[2] == '' then
    redis.call('HDEL', KEYS[1], ARGV[1])
  else
    redis.call('HSET', KEYS[1], ARGV[1], entry(now, tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[2]))
  end
end
local answer = {time[1], time[2]}
local longest = 0
local board = redis.call('HGETALL', KEYS[1])
for i = 1, #board, 2 do
  local stamp, ttl, sequence, begins = string.match(board[i + 1], '^(%d+) (%d+) (%d+) ()')
  if stamp then
    stamp, ttl = tonumber(stamp), math.min(tonumber(ttl), 1e15)
    local report = string.sub(board[i + 1], begins)
    if stamp > now then -- the clock went back (another server, perhaps): from here on the entry grows old by this one
      stamp = now
      redis.call('HSET', KEYS[1], board[i], entry(stamp, ttl, tonumber(sequence), report))
    end
    local left = stamp + ttl - now
    if left > 0 then
      longest = math.max(longest, left)
      answer[#answer + 1] = board[i]
      answer[#answer + 1] = string.format('%.0f', now - stamp)
      answer[#answer + 1] = report
    else
      redis.call('HDEL', KEYS[1], board[i])
    end
  end
end
if longest > 0 then
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.ceil(longest / 1000)))
end
return answer
"""
"""Answers: seconds, microseconds, and for each report the member, its age in microseconds, and the report."""

SWAP: Final = """\
-- KEYS[1]: a hash of a version and a document. ARGV: the version it is to be at, for how many milliseconds a document
-- stands, and the document (none: it is only read).
local time = redis.call('TIME')
local held = redis.call('HMGET', KEYS[1], 'version', 'document')
local version = 0
if held[1] and held[2] and string.match(held[1], '^%d+$') and tonumber(held[1]) < 9e15 then
  version = tonumber(held[1])
end
if ARGV[3] and version == tonumber(ARGV[1]) then
  version = string.format('%.0f', math.max(version + 1, time[1] * 1000000 + time[2]))
  redis.call('HSET', KEYS[1], 'version', version, 'document', ARGV[3])
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return {time[1], time[2], 1, version, ''}
end
return {time[1], time[2], 0, string.format('%.0f', version), version > 0 and held[2] or ''}
"""
"""Answers: seconds, microseconds, 1 where it was replaced, the version, and the document where it was not replaced.

A version is the microsecond in which it began, or the one after the last: so none comes twice, also where the server has
lost what it knew. A member who knows a version that was lost cannot replace another document that came in its place.
"""
