// warp.h -- votes, shuffles and reductions: computed when the last live lane of the mask arrives.
#pragma once
#include "scheduler.h"

namespace emulator {
namespace {

uint64_t reduce(Collective op, const Thread *warp, unsigned active) {
  uint64_t total = 0;
  bool first = true;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (!(active >> lane & 1)) continue;
    const int64_t a = static_cast<int64_t>(total), b = static_cast<int64_t>(warp[lane].value);
    if (first) total = warp[lane].value;
    else if (op == Collective::reduce_add) total += warp[lane].value;
    else if (op == Collective::reduce_min) total = static_cast<uint64_t>(std::min(a, b));
    else if (op == Collective::reduce_max) total = static_cast<uint64_t>(std::max(a, b));
    else if (op == Collective::reduce_and) total &= warp[lane].value;
    else if (op == Collective::reduce_or) total |= warp[lane].value;
    else total ^= warp[lane].value;
    first = false;
  }
  return total;
}

unsigned source_lane(const Thread &t, unsigned lane) {
  const unsigned width = static_cast<unsigned>(t.width), segment = lane & ~(width - 1);
  switch (t.op) {
    case Collective::shuffle:
      return segment + (t.argument & (width - 1));
    case Collective::shuffle_up:
      return lane >= segment + t.argument ? lane - t.argument : lane;
    case Collective::shuffle_down:
      return lane + t.argument < segment + width ? lane + t.argument : lane;
    default:
      return (lane ^ t.argument) < segment + width ? lane ^ t.argument : lane;
  }
}

void set_result(Thread *warp, unsigned lane, unsigned active, unsigned ballot) {
  Thread &t = warp[lane];
  t.result_valid = true;
  switch (t.op) {
    case Collective::sync_warp:
      t.result = 0;
      break;
    case Collective::ballot:
      t.result = ballot;
      break;
    case Collective::any:
      t.result = ballot != 0;
      break;
    case Collective::all:
      t.result = ballot == active;
      break;
    case Collective::match_any:
      t.result = 0;
      for (unsigned other = 0; other < 32; ++other)
        if ((active >> other & 1) && warp[other].value == t.value) t.result |= 1ull << other;
      break;
    case Collective::shuffle:
    case Collective::shuffle_up:
    case Collective::shuffle_down:
    case Collective::shuffle_xor: {
      const unsigned source = source_lane(t, lane);
      t.result_valid = source < 32 && (active >> source & 1);
      t.result = t.result_valid ? warp[source].value : 0;
      break;
    }
    default:
      t.result = reduce(t.op, warp, active);
  }
}

// Every live lane of the mask has arrived: computes all results and wakes them.
void complete(Thread *warp, unsigned lanes, unsigned mask) {
  unsigned active = 0, ballot = 0, order[32];
  for (unsigned lane = 0; lane < lanes; ++lane)
    if ((mask >> lane & 1) && warp[lane].state == State::in_collective) {
      active |= 1u << lane;
      if (warp[lane].value) ballot |= 1u << lane;
    }
  for (unsigned lane = 0; lane < lanes; ++lane) {
    if (active >> lane & 1) set_result(warp, lane, active, ballot);
    order[lane] = schedule == kReverse ? lanes - 1 - lane : lane;
  }
  if (schedule == kRandom) shuffle(order, lanes);
  for (unsigned i = 0; i < lanes; ++i)
    if (active >> order[i] & 1) make_ready(warp[order[i]]);
}

// Completes the collective that `arrived` waits in if every live lane of its mask is there.
void try_complete(Thread *warp, const Thread &arrived) {
  const unsigned lanes = std::min(32u, thread_count - warp->id);
  for (unsigned lane = 0; lane < lanes; ++lane) {
    const Thread &other = warp[lane];
    if (!(arrived.mask >> lane & 1) || other.state == State::finished)
      continue;  // exited lanes do not count since Volta
    if (other.state != State::in_collective) return;
    if (other.op != arrived.op || other.mask != arrived.mask)
      give_up(waiting_in(arrived) + " meets " + waiting_in(other) + " (or another mask) in one warp" +
              place(other));
  }
  complete(warp, lanes, arrived.mask);
}

Thread *warp_of(const Thread &thread) { return &threads[thread.id & ~31u]; }

}  // namespace

uint64_t collective(Collective op, unsigned mask, uint64_t value, unsigned argument, int width, Site site) {
  Thread &me = *running, *warp = warp_of(me);
  me.op = op, me.mask = mask, me.value = value, me.argument = argument, me.width = width, me.site = site;
  me.state = State::in_collective;
  if (!(mask >> (me.id & 31) & 1))
    give_up(waiting_in(me) + ": the calling lane is not in the mask" + place(me));
  if (width < 1 || width > 32 || (width & (width - 1)))
    give_up(waiting_in(me) + ": width is not a power of two" + place(me));
  const bool orders_memory = op == Collective::sync_warp;  // the other collectives do not
  (void)orders_memory;
  ORDER(if (orders_memory) release(warp);)
  try_complete(warp, me);
  run_next();
  ORDER(if (orders_memory) acquire(warp);)
  if (!me.result_valid)
    give_up(collective_name(op) + at(site) + ": reads a lane that is inactive or not in the mask" +
            place(me));
  return me.result;
}

}  // namespace emulator
