// shared_memory.h -- shared memory is garbage at the start of every block, and its end is watched.
#pragma once
#include <link.h>

#include "scheduler.h"

namespace emulator {
namespace {

constexpr uint32_t kGarbage = 0xFFFFDEADu;  // a NaN as float and as double, absurd as an integer

void fill_with_garbage(void *memory, size_t bytes) {
  char *at = static_cast<char *>(memory);
  for (; bytes >= sizeof kGarbage; bytes -= sizeof kGarbage, at += sizeof kGarbage)
    memcpy(at, &kGarbage, sizeof kGarbage);
  memcpy(at, &kGarbage, bytes);
}

// Static shared arrays are this library's thread_local variables (see __shared__): found here, to be filled
// before each block.
struct StaticShared {
  void *memory = nullptr;
  size_t bytes = 0;
};
// The linker puts these behind the kernel's arrays, as runtime.o comes last: a write behind the last array is
// noticed.
thread_local char behind_shared[4096];

int find_static_shared(dl_phdr_info *info, size_t, void *result) {
  bool mine = false;
  size_t bytes = 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto &header = info->dlpi_phdr[i];
    const uintptr_t offset = reinterpret_cast<uintptr_t>(&threads) - info->dlpi_addr - header.p_vaddr;
    if (header.p_type == PT_LOAD && offset < header.p_memsz) mine = true;
    if (header.p_type == PT_TLS) bytes = header.p_memsz;
  }
  if (mine && info->dlpi_tls_data) *static_cast<StaticShared *>(result) = {info->dlpi_tls_data, bytes};
  return mine;
}

bool is_garbage(const char *memory, size_t bytes, size_t phase) {
  for (size_t i = 0; i < bytes; ++i)
    if (memory[i] != reinterpret_cast<const char *>(&kGarbage)[(i + phase) % sizeof kGarbage]) return false;
  return true;
}

// Dynamic shared memory ends at a page that must not be touched, or at a red zone of AddressSanitizer.
class DynamicShared {
 public:
  explicit DynamicShared(size_t bytes) : bytes_(bytes) {
#ifdef EMULATOR_ASAN
    dynamic_shared = static_cast<char *>(malloc(bytes + 16));
    __asan_poison_memory_region(dynamic_shared + bytes, 16);
#else
    static char *arena = nullptr;
    if (!arena) {
      arena = static_cast<char *>(
          mmap(nullptr, kArena + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
      mprotect(arena + kArena, kPage, PROT_NONE);
    }
    dynamic_shared = arena + kArena - rounded();
#endif
  }
  ~DynamicShared() {
#ifdef EMULATOR_ASAN
    __asan_unpoison_memory_region(dynamic_shared + bytes_, 16);
    free(dynamic_shared);
#endif
    dynamic_shared = nullptr;
  }
  void refill() { fill_with_garbage(dynamic_shared, rounded()); }
  // Do the bytes between the end and the forbidden page, left by the rounding, still hold garbage?
  bool intact() const { return is_garbage(dynamic_shared + bytes_, rounded() - bytes_, bytes_); }

 private:
#ifdef EMULATOR_ASAN
  size_t rounded() const { return bytes_; }  // the red zone starts at once
#else
  static constexpr size_t kArena = 256 << 10, kPage = 64 << 10;  // a multiple of every usual page size
  size_t rounded() const { return (bytes_ + 15) / 16 * 16; }
#endif
  size_t bytes_;
};

}  // namespace
}  // namespace emulator
