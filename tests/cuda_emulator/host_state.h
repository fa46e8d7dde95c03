// host_state.h -- what a launch changes of the process and puts back: signal handlers, the flushing of denormals.
#pragma once
#include <csetjmp>
#include <csignal>
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

#include "scheduler.h"

namespace emulator {
namespace {

sigjmp_buf after_crash;
alignas(16) char signal_stack[64 << 10];

void on_crash(int signal, siginfo_t *info, void *) {
  char what[64];
  if (signal == SIGFPE) snprintf(what, sizeof what, "integer division by zero");
  else snprintf(what, sizeof what, "illegal memory access at %p", info->si_addr);
  fail(what + (running ? place(*running) : std::string()));
  siglongjmp(after_crash, 1);
}

// Turns crashes of the kernel into errors while it lives.  AddressSanitizer and ThreadSanitizer have their
// own handlers.
class CrashHandler {
#if !defined(EMULATOR_ASAN) && !defined(EMULATOR_TSAN)
 public:
  CrashHandler() {
    struct sigaction action = {};
    action.sa_sigaction = on_crash;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    stack_t stack = {signal_stack, 0, sizeof signal_stack};
    sigaltstack(&stack, &old_stack_);
    for (int i = 0; i < 3; ++i) sigaction(kSignals[i], &action, &old_[i]);
  }
  ~CrashHandler() {
    for (int i = 0; i < 3; ++i) sigaction(kSignals[i], &old_[i], nullptr);
    sigaltstack(&old_stack_, nullptr);
  }

 private:
  static constexpr int kSignals[3] = {SIGSEGV, SIGBUS, SIGFPE};
  struct sigaction old_[3];
  stack_t old_stack_;
#else
 public:
  CrashHandler() { (void)on_crash, (void)signal_stack; }
#endif
};

// Denormals become zero on the way in and out, as with the -ftz=true that CuPy always passes.  The host's
// switch holds for doubles as well, the device's does not.
class FlushDenormals {
#if defined(__SSE2__)
 public:
  FlushDenormals() : old_(_mm_getcsr()) { _mm_setcsr(old_ | kFlushToZero | kDenormalsAreZero); }
  ~FlushDenormals() { _mm_setcsr(old_); }

 private:
  static constexpr unsigned kFlushToZero = 0x8000, kDenormalsAreZero = 0x0040;
  unsigned old_;
#else
 public:
  FlushDenormals() {}
#endif
};

}  // namespace
}  // namespace emulator
