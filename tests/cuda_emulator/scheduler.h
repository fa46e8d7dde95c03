// scheduler.h -- the threads of a block: who runs, who waits, in which order they go on, and what goes wrong.
//
// A thread runs until it waits (barrier, warp collective) or ends; then the next ready one runs. Which thread
// comes first is the schedule's choice: code that is right for CUDA is right for all.
#pragma once
#include <algorithm>
#include <cstdio>
#include <string>

#include "fibers.h"
#include "runtime.h"

namespace emulator {

const uint3 *thread_index;
uint3 block_index;
dim3 block_size;
dim3 grid_size;
char *dynamic_shared;

namespace {

constexpr unsigned kMaxThreads = 1024;

enum Schedule { kForward, kReverse, kRandom, kWarpsReversed };  // SCHEDULES in module.py
enum class State { ready, at_barrier, in_collective, finished };

struct Thread {
  uint3 index;
  unsigned id;
  State state;
  Site site;  // where it waits
  // The warp collective it waits in, and what came out.
  Collective op;
  unsigned mask, argument;
  int width;
  uint64_t value, result;
  bool result_valid;
  Context context;
};

Thread threads[kMaxThreads];
Thread *running;
Context launcher;
unsigned thread_count, alive, at_barrier, barrier_votes, barrier_result, generation;
unsigned queue[kMaxThreads + 1], queue_head, queue_tail;
int schedule;
bool unordered_blocks, failed;
uint32_t random_state;
std::string failure;

#ifdef EMULATOR_TSAN
// Addresses that stand for an order: the two latest barriers, the end of a block, its beginning.
char barrier_order[2], end_of_block, start_of_block;
void acquire(void *address) { __tsan_acquire(address); }
void release(void *address) { __tsan_release(address); }
#define ORDER(...) __VA_ARGS__
#else
#define ORDER(...)
#endif

uint32_t next_random() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 17;
  return random_state ^= random_state << 5;
}

void make_ready(Thread &thread) {
  thread.state = State::ready;
  queue[queue_tail] = thread.id;
  queue_tail = queue_tail == kMaxThreads ? 0 : queue_tail + 1;
}

void shuffle(unsigned *order, unsigned count) {
  for (unsigned i = count; i > 1; --i) std::swap(order[i - 1], order[next_random() % i]);
}

// nullptr stands for the launching code.
void switch_to(Thread *next) {
  Thread *from = running;
  running = next;
  if (next) thread_index = &next->index;
  switch_context(from ? from->context : launcher, next ? next->context : launcher,
                 from && from->state == State::finished);
}

// The running thread has to wait, or is done: the next ready one runs; without one, the launching code.
void run_next() {
  Thread *next = nullptr;
  if (queue_head != queue_tail) {
    next = &threads[queue[queue_head]];
    queue_head = queue_head == kMaxThreads ? 0 : queue_head + 1;
  }
  if (next != running) switch_to(next);
}

// ---- errors ----

std::string coordinates(const char *what, const uint3 &index) {
  char text[64];
  snprintf(text, sizeof text, "%s (%u,%u,%u)", what, index.x, index.y, index.z);
  return text;
}

std::string block_place() { return coordinates(", block", block_index); }

std::string place(const Thread &t) { return block_place() + coordinates(" thread", t.index); }

std::string at(const Site &site) {
  return std::string(" at ") + (site.file ? site.file : "?") + " line " + std::to_string(site.line);
}

const char *collective_name(Collective op) {
  static const char *const names[] = {
      "__syncwarp",        "__ballot_sync",     "__any_sync",        "__all_sync",        "__match_any_sync",
      "__reduce_add_sync", "__reduce_min_sync", "__reduce_max_sync", "__reduce_and_sync", "__reduce_or_sync",
      "__reduce_xor_sync", "__shfl_sync",       "__shfl_up_sync",    "__shfl_down_sync",  "__shfl_xor_sync"};
  return names[static_cast<int>(op)];
}

std::string waiting_in(const Thread &t) {
  return (t.state == State::at_barrier ? "__syncthreads" : collective_name(t.op)) + at(t.site);
}

void fail(const std::string &message) {
  if (!failed) failure = message;
  failed = true;
}

// The block is abandoned: its fibers are never continued, the launching code reports.
[[noreturn]] void give_up(const std::string &message) {
  fail(message);
  for (;;) switch_to(nullptr);
}

// ---- barriers ----

void release_block() {
  static unsigned order[kMaxThreads];
  const unsigned n = thread_count;
  if (alive < n)  // the hardware lets it pass; the CUDA guide does not
    for (unsigned i = 0; i < n; ++i)
      if (threads[i].state == State::finished)
        give_up("__syncthreads is not reached by the whole block: a thread exited before it" +
                place(threads[i]));
  for (unsigned i = 0; i < n; ++i) order[i] = schedule == kReverse ? n - 1 - i : i;
  if (schedule == kRandom) shuffle(order, n);
  if (schedule == kWarpsReversed)
    for (unsigned warp = (n + 31) / 32, k = 0; warp-- > 0;)
      for (unsigned i = warp * 32; i < std::min(n, warp * 32 + 32); ++i) order[k++] = i;
  barrier_result = barrier_votes;
  at_barrier = barrier_votes = 0;
  ++generation;
  for (unsigned i = 0; i < n; ++i)
    if (threads[order[i]].state == State::at_barrier) make_ready(threads[order[i]]);
}

bool same_site(const Site &a, const Site &b) {
  return a.line == b.line && (a.file == b.file || !strcmp(a.file, b.file));
}

}  // namespace

int barrier(Vote vote, bool predicate, Site site) {
  Thread &me = *running;
  me.state = State::at_barrier;
  me.site = site;
  barrier_votes += predicate;
  const unsigned voters = alive;
  ORDER(void *order = &barrier_order[generation & 1]; release(order);)
  if (++at_barrier == alive) {
    for (unsigned i = 0; i < thread_count; ++i)
      if (threads[i].state == State::at_barrier && !same_site(threads[i].site, site))
        give_up("divergent " + waiting_in(me) + " and" + at(threads[i].site) + place(threads[i]));
    release_block();
  }
  run_next();
  ORDER(acquire(order);)
  if (vote == Vote::count) return static_cast<int>(barrier_result);
  return vote == Vote::all ? barrier_result == voters : barrier_result != 0;
}

void maybe_preempt() {
  if (schedule != kRandom || next_random() % 4) return;
  make_ready(*running);
  run_next();
}

void stop(const char *what, Site site) {
  give_up(what + at(site) + (running ? place(*running) : std::string()));
}

}  // namespace emulator
