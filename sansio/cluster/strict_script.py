"""What a store that speaks the protocol of Redis does for a `Take`: one script, so that it is one step and one round trip.

The script does what `StrictLedger.take` does, which is the reference and explains it. It runs on Valkey, and on Redis 6 or
newer. It keeps a ledger under two keys with one hash tag: a hash of all that is counted, and who is forgotten when.

What it costs does not grow with what the ledger holds: what has left is removed once, and the line of heads is bounded. Only
for a refused head's wait it looks at slots, at as many as have to leave.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final, cast

import msgspec

from .store import StoreLost, Take, Taken
from .strict_ledger import JUMP, MOST, MOST_FORGOTTEN, MOST_HEADS, MOST_SEQUENCE, PLACE, terms_of

SCRIPT: Final = """\
-- KEYS: the ledger, and its members by when they are forgotten. ARGV[1]: a Take, and what follows from its quotas.
local time = redis.call('TIME')
local LEDGER, MEMBERS = KEYS[1], KEYS[2]
local CHUNK = 100
local take = cmsgpack.unpack(ARGV[1])

local function digits(number) -- all of them, which tostring and .. do not give
  return string.format('%.0f', number)
end

-- What is known

local names = {'now', 'sequence', 'base', 'quarantined_until', 'running', 'line', 'm:' .. take.member}
for _, each in ipairs(take.dimensions) do
  names[#names + 1] = each.name .. ':first'
  names[#names + 1] = each.name .. ':total'
end
local known = redis.call('HMGET', LEDGER, unpack(names))
local now = math.max(time[1] * 1000000 + time[2], tonumber(known[1] or 0))
local sequence, base = tonumber(known[2] or 0), tonumber(known[3] or 0)
local quarantined_until, running = tonumber(known[4] or 0), tonumber(known[5] or 0)
local line = known[6] and known[6] ~= '' and cmsgpack.unpack(known[6]) or {}

local function member_of(text)
  local number, told, runs = string.match(text or '0 0 0', '^(%d+) (%d+) (%d+)$')
  return {number = tonumber(number), sequence = tonumber(told), running = tonumber(runs)}
end
local member = member_of(known[7])

-- Time passes: slots leave, silent members are forgotten, places expire

local function slot_name(each, slot)
  return each.name .. ':' .. digits(slot)
end

local function slots_held(each, from, to)
  local slots = {}
  for slot = from, math.min(from + CHUNK - 1, to) do
    slots[#slots + 1] = slot_name(each, slot)
  end
  return redis.call('HMGET', LEDGER, unpack(slots)), slots
end

for index, each in ipairs(take.dimensions) do
  if each.span > 0 then
    local counts = math.floor((now - each.span) / each.width)
    each.newest = math.floor(now / each.width)
    each.first = tonumber(known[6 + 2 * index] or each.newest) -- no slot before it was charged, or that has left
    each.total = tonumber(known[7 + 2 * index] or 0)
    local last = math.min(counts - 1, each.first + math.ceil(each.span / each.width) + 1) -- nothing was charged beyond
    for from = each.first, last, CHUNK do
      local held, slots = slots_held(each, from, last)
      for _, amount in ipairs(held) do
        each.total = each.total - (amount or 0)
      end
      redis.call('HDEL', LEDGER, unpack(slots))
    end
    each.first = math.max(each.first, counts)
  end
end

for _, name in ipairs(redis.call('ZRANGEBYSCORE', MEMBERS, '-inf', digits(now), 'LIMIT', 0, take.most_forgotten)) do
  running = running - member_of(redis.call('HGET', LEDGER, 'm:' .. name)).running
  redis.call('HDEL', LEDGER, 'm:' .. name)
  redis.call('ZREM', MEMBERS, name)
  if name == take.member then
    member = member_of()
  end
end

local ahead, behind, place = {}, {}, nil
for _, head in ipairs(line) do
  if head.expires > now then
    if head.member == take.member then
      place = head
    elseif place then
      behind[#behind + 1] = head
    else
      ahead[#ahead + 1] = head
    end
  end
end

-- How a ledger is read and written

local changed, held_by = {}, {}

local function write()
  local pairs_of = {}
  for name, value in pairs(changed) do
    pairs_of[#pairs_of + 1] = name
    pairs_of[#pairs_of + 1] = value
    if #pairs_of == 2 * CHUNK then
      redis.call('HSET', LEDGER, unpack(pairs_of))
      pairs_of = {}
    end
  end
  if #pairs_of > 0 then
    redis.call('HSET', LEDGER, unpack(pairs_of))
  end
  changed = {}
end

local function held_in(slot)
  if held_by[slot] == nil then
    local held = redis.call('HGET', LEDGER, slot)
    held_by[slot] = held and tonumber(held)
  end
  return held_by[slot]
end

local function add(slot, change)
  local held = held_in(slot) or 0
  local amount = math.max(0, math.min(take.most, held + change))
  held_by[slot], changed[slot] = amount, digits(amount)
  return amount - held
end

local function level(each)
  return each.span > 0 and each.total or running
end

local function kept_for(heads, kept)
  for _, head in ipairs(heads) do
    for _, each in ipairs(take.dimensions) do
      kept[each.name] = (kept[each.name] or 0) + (head.costs[each.name] or 0)
    end
  end
  return kept
end

-- What is asked

local function notice_loss()
  if take.answered == 0 or take.known < base or take.known > take.most_sequence then
    return
  end
  local same
  if member.number == take.answered then
    same = member.sequence == take.known
  else
    same = member.number > take.answered and member.sequence > take.known
  end
  if not same then
    sequence = math.max(sequence, take.known) + take.jump
    base = sequence
    quarantined_until = math.max(quarantined_until, now + take.quarantine)
  end
end

local function correct()
  for _, correction in ipairs(take.corrections) do
    local at, changes, question = unpack(correction)
    if question > member.number then
      for index, each in ipairs(take.dimensions) do
        if each.span > 0 and changes[index] ~= 0 then
          local slot = slot_name(each, math.floor(at / each.width))
          if held_in(slot) then
            each.total = each.total + add(slot, changes[index])
          end
        end
      end
    end
  end
end

local function fits(ask, kept)
  for index, each in ipairs(take.dimensions) do
    if level(each) + (kept[each.name] or 0) + ask[index] > each.limit then
      return false
    end
  end
  return true
end

local function grant()
  local kept, granted = kept_for(ahead, {}), 0
  for _, ask in ipairs(take.asks) do
    if granted == 1 then
      kept_for(behind, kept)
    end
    if not fits(ask, kept) then
      break
    end
    granted = granted + 1
    for index, each in ipairs(take.dimensions) do
      if each.span > 0 then
        each.total = each.total + ask[index]
        each.charged = (each.charged or 0) + ask[index]
      else
        running = running + ask[index]
        member.running = member.running + ask[index]
      end
    end
  end
  for _, each in ipairs(take.dimensions) do
    if each.charged then
      add(slot_name(each, each.newest), each.charged)
    end
  end
  return granted
end

local function fits_at(each, amount)
  local excess = level(each) + amount - each.limit
  if excess <= 0 then
    return now
  end
  if each.span == 0 then
    return math.huge
  end
  each.next, each.freed = each.next or each.first, each.freed or 0 -- asked again, it is for more: it goes on where it was
  while each.freed < excess do
    if each.next > each.newest then
      return math.huge
    end
    if not each.held or each.next == each.from + CHUNK then
      each.from, each.held = each.next, slots_held(each, each.next, each.newest)
    end
    local held = each.held[each.next - each.from + 1]
    if not held and each.next == each.first and each.next < each.newest then
      each.first = each.first + 1 -- never charged, nor will be: not to be looked at again
    end
    each.freed = each.freed + (held or 0)
    each.next = each.next + 1
  end
  return each.next * each.width + each.span
end

local function wait()
  write()
  local before = {unpack(ahead)}
  table.sort(before, function(one, other) return one.expires < other.expires end)
  local soonest, kept = math.huge, {}
  for gone = #before, 0, -1 do
    if gone < #before then
      kept_for({before[gone + 1]}, kept)
    end
    local gone_at = gone > 0 and before[gone].expires or now
    local room_at = gone_at
    for index, each in ipairs(take.dimensions) do
      room_at = math.max(room_at, fits_at(each, (kept[each.name] or 0) + take.asks[1][index]))
    end
    soonest = math.min(soonest, room_at)
    if room_at > gone_at then
      break
    end
  end
  return soonest < math.huge and math.max(soonest, quarantined_until) - now or -1
end

local granted, until_then = 0, -1
if take.number > member.number then
  notice_loss()
  sequence = sequence + 1
  correct()
  running = running + take.running - member.running
  member.running = take.running
  if now >= quarantined_until then
    granted = grant()
  end
  local waits = #take.asks > 0 and granted == 0
  if waits then
    until_then = wait()
  end
  if waits and (place or #ahead < take.most_heads) then
    local costs = {}
    for index, each in ipairs(take.dimensions) do
      costs[each.name] = take.asks[1][index]
    end
    place = {member = take.member, expires = now + take.place, costs = costs}
  else
    place = nil
  end
  changed['m:' .. take.member] = digits(take.number) .. ' ' .. digits(sequence) .. ' ' .. digits(member.running)
  redis.call('ZADD', MEMBERS, digits(now + take.memory), take.member)
end

-- What is known now

line = ahead
line[#line + 1] = place
for _, head in ipairs(behind) do
  line[#line + 1] = head
end
changed.now, changed.sequence, changed.base = digits(now), digits(sequence), digits(base)
changed.quarantined_until, changed.running = digits(quarantined_until), digits(running)
changed.line = #line > 0 and cmsgpack.pack(line) or ''
local answer = {granted, math.floor(now / take.grain) * take.grain, until_then, sequence, now}
for _, each in ipairs(take.dimensions) do
  if each.span > 0 then
    changed[each.name .. ':first'], changed[each.name .. ':total'] = digits(each.first), digits(each.total)
  end
  answer[#answer + 1] = level(each)
end
write()
redis.call('PEXPIRE', LEDGER, take.keep)
redis.call('PEXPIRE', MEMBERS, take.keep)
return answer
"""
"""Answers integers: how many were granted, the slot, the wait (-1: not by time alone), the sequence, the store's clock, and
what counts in each dimension. Times are in microseconds."""

_TAGGED: Final = re.compile(r"\{[^}]+\}")
"""What a clustered store goes by (its first match), where a key has it."""


def keys_of(request: Take) -> tuple[str, str]:
    """The two keys of the script, on one node of a clustered store."""
    key = request.key
    if not _TAGGED.search(key):
        key = "{" + key.replace("%", "%25").replace("}", "%7D") + "}"
    return f"{key}:ledger", f"{key}:members"


def arguments_of(request: Take) -> tuple[bytes]:
    """The one argument of the script."""
    terms = terms_of(request.quotas)
    return (
        msgspec.msgpack.encode(
            {
                "member": request.member,
                "number": request.number,
                "answered": request.answered,
                "known": request.known,
                "running": 0 if request.leaves else request.running,
                "dimensions": [each._asdict() for each in terms.dimensions],
                "asks": () if request.leaves else request.asks,
                "corrections": request.corrections,
                "grain": terms.grain,
                "memory": terms.memory,
                "quarantine": terms.quarantine,
                "keep": math.ceil(terms.memory / 500),  # milliseconds; twice as long as anything of it is of interest
                "place": PLACE,
                "jump": JUMP,
                "most": MOST,
                "most_heads": MOST_HEADS,
                "most_forgotten": MOST_FORGOTTEN,
                "most_sequence": MOST_SEQUENCE,
            }
        ),
    )


def taken_of(request: Take, answer: object) -> Taken | StoreLost:
    """What the script answered to a request. What cannot be an answer to it is none."""
    numbers = cast("list[Any]", answer) if isinstance(answer, (list, tuple)) else []
    if len(numbers) != 5 + len(request.quotas) or not all(type(each) is int for each in numbers):
        return StoreLost("the store's answer is not that of the script")
    granted, slot, wait, sequence, now, *levels = cast("list[int]", numbers)
    if not 0 <= granted <= len(request.asks) or wait < -1 or min(slot, sequence, now, *levels, 0) < 0:
        return StoreLost("the store's answer cannot be an answer to this question")
    return Taken(granted, slot, None if wait < 0 else wait / 1e6, sequence, tuple(levels), now / 1e6)
