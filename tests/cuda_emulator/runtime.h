// runtime.h -- what the code of a kernel needs from the emulator: who am I, wait for my block, talk to my
// warp.
//
// A kernel is compiled against this header alone; runtime.cpp is compiled once per sanitizer and linked to
// it.  Only the kernel is instrumented by a sanitizer, so the scheduler's own bookkeeping can neither hide a
// race nor be taken for one.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#pragma GCC visibility push(hidden)
namespace emulator {

// Where in the source a thread waits.  File and line follow #line, so concatenated sources keep their own
// names.
struct Site {
  const char *file;
  int line;
};
#define EMULATOR_SITE (emulator::Site{__FILE__, __LINE__})

enum class Vote { none, count, any, all };  // what a barrier returns: __syncthreads, _count, _or, _and

enum class Collective {  // the order is that of collective_name() in runtime.cpp; shuffles come last
  sync_warp,
  ballot,
  any,
  all,
  match_any,
  reduce_add,
  reduce_min,
  reduce_max,
  reduce_and,
  reduce_or,
  reduce_xor,
  shuffle,
  shuffle_up,
  shuffle_down,
  shuffle_xor
};

struct LaunchOptions {  // mirrored by _LaunchOptions in module.py
  unsigned grid[3];
  unsigned block[3];
  uint64_t shared_bytes;
  int schedule;
  unsigned seed;
  int unordered_blocks;  // ThreadSanitizer: look for races between blocks too
};

extern const uint3 *thread_index;  // of the running fiber
extern uint3 block_index;
extern dim3 block_size;
extern dim3 grid_size;
extern char *dynamic_shared;

// Waits until the whole block has arrived; returns the vote over `predicate`.
int barrier(Vote vote, bool predicate, Site site);

// Waits until every live lane of `mask` has arrived; returns this lane's result.
uint64_t collective(Collective op, unsigned mask, uint64_t value, unsigned argument, int width, Site site);

// In the random schedule, sometimes lets another thread run first.
void maybe_preempt();

// Ends the launch with an error that names the block and thread.
[[noreturn]] void stop(const char *what, Site site);

int launch(const LaunchOptions &options, void (*run_thread)(void *), void *argument, char *error,
           size_t error_size);

}  // namespace emulator
#pragma GCC visibility pop
