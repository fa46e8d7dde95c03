// fibers.h -- a stack and a place to continue for every CUDA thread, and the switch between two of them.
//
// Three hooks per switch keep the sanitizers informed: AddressSanitizer has to know which stack is in use,
// and ThreadSanitizer treats every fiber as a thread of its own (a switch itself orders nothing, or no race
// would be seen).
#pragma once
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>

#if !defined(__x86_64__) && !defined(EMULATOR_UCONTEXT)
#define EMULATOR_UCONTEXT \
  1  // the portable way, about ten times slower per switch: it saves the signal mask by a system call
#endif
#ifdef EMULATOR_UCONTEXT
#include <ucontext.h>
#endif

#ifdef EMULATOR_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef EMULATOR_TSAN
extern "C" {
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void *fiber);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
void __tsan_acquire(void *address);
void __tsan_release(void *address);
}
#endif

#ifndef EMULATOR_UCONTEXT
// Saves the callee-saved registers on the old stack, keeps its pointer in *save, continues on the stack
// `load`.
extern "C" void emulator_switch_stack(void **save, void *load);
asm(R"(
  .text
  .hidden emulator_switch_stack
  .globl emulator_switch_stack
  .type emulator_switch_stack, @function
emulator_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size emulator_switch_stack, . - emulator_switch_stack
)");
#endif

namespace emulator {

#if defined(EMULATOR_ASAN) || defined(EMULATOR_TSAN)
constexpr size_t kStackBytes = 256 << 10;  // red zones and reports need room
#else
constexpr size_t kStackBytes = 64 << 10;
#endif

struct Context {  // where a fiber, or the launching code, continues
#ifdef EMULATOR_UCONTEXT
  ucontext_t machine;
#else
  void *stack_pointer = nullptr;
#endif
  const void *stack_bottom = nullptr;
  size_t stack_size = 0;
  void *asan_fake_stack = nullptr;
  void *tsan_fiber = nullptr;
};

inline char *allocate_stacks(unsigned count) {
  void *memory =
      mmap(nullptr, count * kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : static_cast<char *>(memory);
}

// Lets `context` start with entry() on its own stack.  `colour` spreads the stack tops over the sets of the
// cache: all of them a multiple of 64 KiB apart would fight for one set.
inline void prepare_context(Context &context, char *stack, unsigned colour, void (*entry)()) {
  context.stack_bottom = stack;
  context.stack_size = kStackBytes;
  context.asan_fake_stack = nullptr;
  char *top = stack + kStackBytes - (colour % 64) * 64;
#ifdef EMULATOR_UCONTEXT
  getcontext(&context.machine);
  context.machine.uc_stack.ss_sp = stack;
  context.machine.uc_stack.ss_size = static_cast<size_t>(top - stack);
  context.machine.uc_link = nullptr;
  makecontext(&context.machine, entry, 0);
#else
  // The switch pops six registers and returns into entry(), with the stack as after a call: 8 modulo 16.
  void **slot = reinterpret_cast<void **>(top) - 1;
  *--slot = reinterpret_cast<void *>(entry);
  slot -= 6;
  memset(slot, 0, 6 * sizeof *slot);
  context.stack_pointer = slot;
#endif
}

// `finished`: the fiber `from` will not be continued, its fake stack may go.
inline void switch_context(Context &from, Context &to, bool finished) {
  (void)finished;
#ifdef EMULATOR_ASAN
  __sanitizer_start_switch_fiber(finished ? nullptr : &from.asan_fake_stack, to.stack_bottom, to.stack_size);
#endif
#ifdef EMULATOR_TSAN
  __tsan_switch_to_fiber(to.tsan_fiber, /*do not synchronize=*/1);
#endif
#ifdef EMULATOR_UCONTEXT
  swapcontext(&from.machine, &to.machine);
#else
  emulator_switch_stack(&from.stack_pointer, to.stack_pointer);
#endif
#ifdef EMULATOR_ASAN
  __sanitizer_finish_switch_fiber(from.asan_fake_stack, nullptr, nullptr);
#endif
}

}  // namespace emulator
