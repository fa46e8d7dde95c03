// runtime.cpp -- runs a launch: one block after another, one fiber per CUDA thread, one OS thread.
//
// A block whose threads all wait is a deadlock. The parts below are one translation unit, compiled once for each
// sanitizer.
#include "runtime.h"

#include "fibers.h"
#include "host_state.h"
#include "scheduler.h"
#include "shared_memory.h"
#include "undefined_behaviour.h"
#include "warp.h"

namespace emulator {
namespace {

constexpr size_t kMaxShared = 232448;  // bytes a block may ask for on the largest supported architecture

char *stacks;
void (*run_thread)(void *);
void *run_argument;

// The first function on every fiber's stack.
void fiber_main() {
#ifdef EMULATOR_ASAN
  const void *bottom;
  size_t size;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
  if (!launcher.stack_bottom) launcher.stack_bottom = bottom, launcher.stack_size = size;
#endif
  ORDER(if (!unordered_blocks) acquire(&start_of_block);)
  run_thread(run_argument);
  running->state = State::finished;
  --alive;
  ORDER(release(&end_of_block);)
  if (alive && at_barrier == alive) release_block();
  Thread *warp = warp_of(*running);
  for (unsigned lane = 0; lane < 32 && warp->id + lane < thread_count; ++lane)
    if (warp[lane].state == State::in_collective) {
      try_complete(warp, warp[lane]);
      break;
    }
  run_next();
  abort();  // a finished fiber is never continued
}

void run_block() {
  queue_head = queue_tail = at_barrier = barrier_votes = generation = 0;
  alive = thread_count;
  for (unsigned i = 0; i < thread_count; ++i) {
    Thread &t = threads[i];
    t.id = i;
    t.index = {i % block_size.x, i / block_size.x % block_size.y, i / (block_size.x * block_size.y)};
    t.state = State::at_barrier;  // release_block() starts them in the schedule's order
    ORDER(if (!t.context.tsan_fiber || unordered_blocks) t.context.tsan_fiber = __tsan_create_fiber(0);)
    prepare_context(t.context, stacks + i * kStackBytes, i, fiber_main);
  }
  release_block();
  run_next();
  for (unsigned i = 0; i < thread_count && alive && !failed; ++i)
    if (threads[i].state != State::finished)
      fail("deadlock: " + std::to_string(alive) + " threads wait, the first in " + waiting_in(threads[i]) +
           place(threads[i]));
#ifdef EMULATOR_TSAN
  if (!unordered_blocks) return acquire(&end_of_block);
  for (unsigned i = 0; i < thread_count; ++i) {
    __tsan_destroy_fiber(threads[i].context.tsan_fiber);
    threads[i].context.tsan_fiber = nullptr;
  }
  // Fresh pages: what the next block's fibers put on their stacks is not ordered after what these put there.
  mmap(stacks, kMaxThreads * kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
       0);
#endif
}

uint64_t greatest_common_divisor(uint64_t a, uint64_t b) { return b ? greatest_common_divisor(b, a % b) : a; }

void run_grid(DynamicShared &shared, const StaticShared &static_shared, unsigned seed) {
  const uint64_t blocks = static_cast<uint64_t>(grid_size.x) * grid_size.y * grid_size.z;
  uint64_t stride = 1, offset = 0;
  if (schedule == kRandom) {  // i -> stride * i + offset (mod blocks) visits every block once
    offset = seed % blocks;
    stride = 1 + next_random() % blocks;
    while (greatest_common_divisor(stride, blocks) != 1) ++stride;
  }
  for (uint64_t i = 0; i < blocks && !failed; ++i) {
    uint64_t block = (i * stride + offset) % blocks;
    if (schedule == kReverse || schedule == kWarpsReversed) block = blocks - 1 - i;
    block_index = {static_cast<unsigned>(block % grid_size.x),
                   static_cast<unsigned>(block / grid_size.x % grid_size.y),
                   static_cast<unsigned>(block / grid_size.x / grid_size.y)};
    shared.refill();
    fill_with_garbage(static_shared.memory, static_shared.bytes);
    fill_with_garbage(behind_shared, sizeof behind_shared);
    ORDER(release(&start_of_block);)
    run_block();
    if (!failed && !shared.intact())
      fail("write behind the end of dynamic shared memory" + block_place());
    if (!failed && !is_garbage(behind_shared, sizeof behind_shared, 0))
      fail("write behind the end of static shared memory" + block_place());
  }
}

bool valid(const LaunchOptions &o) {
  const uint64_t n = static_cast<uint64_t>(o.block[0]) * o.block[1] * o.block[2];
  return n >= 1 && n <= kMaxThreads && o.block[2] <= 64 && o.grid[0] >= 1 && o.grid[0] <= 0x7FFFFFFFu &&
         o.grid[1] >= 1 && o.grid[1] <= 65535 && o.grid[2] >= 1 && o.grid[2] <= 65535 &&
         o.shared_bytes <= kMaxShared;
}

void start(const LaunchOptions &o, void (*function)(void *), void *argument) {
  grid_size = dim3(o.grid[0], o.grid[1], o.grid[2]);
  block_size = dim3(o.block[0], o.block[1], o.block[2]);
  thread_count = o.block[0] * o.block[1] * o.block[2];
  schedule = o.schedule;
  unordered_blocks = o.unordered_blocks;
  random_state = (o.seed * 2654435761u) | 1u;
  run_thread = function;
  run_argument = argument;
  failed = false;
  failure.clear();
  running = nullptr;
  launcher.stack_bottom = nullptr;
  ORDER(launcher.tsan_fiber = __tsan_get_current_fiber();)
  if (!stacks) stacks = allocate_stacks(kMaxThreads);
}

}  // namespace

int launch(const LaunchOptions &options, void (*function)(void *), void *argument, char *error,
           size_t error_size) {
  if (!valid(options)) return snprintf(error, error_size, "invalid launch configuration"), 1;
  start(options, function, argument);
  if (!stacks) return snprintf(error, error_size, "no memory for the stacks of the fibers"), 1;
  behind_shared[0] = 0;  // touching it makes the loader allocate the thread_local block
  StaticShared static_shared;
  dl_iterate_phdr(find_static_shared, &static_shared);
  {
    DynamicShared shared(options.shared_bytes);
    CrashHandler handler;
    FlushDenormals flush;
    if (!sigsetjmp(after_crash, 1)) run_grid(shared, static_shared, options.seed);
  }
  ORDER(acquire(&end_of_block);)
  running = nullptr;
#ifdef EMULATOR_ASAN
  // Frames that never returned left their red zones.
  if (failed) __asan_unpoison_memory_region(stacks, thread_count * kStackBytes);
#endif
  if (failed) snprintf(error, error_size, "%s", failure.c_str());
  return failed;
}

}  // namespace emulator
