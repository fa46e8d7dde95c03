// cuda_language.h -- the part of CUDA C++ that kernels may use, in terms of runtime.h.
//
// What is missing (cooperative groups, __activemask, inline PTX, textures...) must not compile, rather than
// run wrong. Types are as strict as CUDA's: an atomicAdd on long long does not exist there and is refused
// here.
#pragma once
// The C++ faces of these two put the float overloads of sqrt, abs... into the global namespace, as CUDA has
// them; <cmath> alone would leave only the double ones there.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime.h"

#define __CUDA_EMULATOR__ 1
#define __global__
#define __device__
#define __host__
#define __noinline__ __attribute__((noinline))
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __constant__ static
// Either AddressSanitizer puts red zones round each array, or all arrays are one contiguous block of the library,
// which the runtime finds and refills with garbage before every CUDA block.
#ifdef EMULATOR_ASAN
#define __shared__ static
#else
#define __shared__ thread_local
#endif

#define threadIdx (*emulator::thread_index)
#define blockIdx (emulator::block_index)
#define blockDim (emulator::block_size)
#define gridDim (emulator::grid_size)
#define warpSize 32

// ---- vector types ----

#define EMULATOR_VECTOR_TYPES(name, T)                                               \
  struct alignas(2 * sizeof(T)) name##2 { T x, y; };                                 \
  struct alignas(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) name##4 { T x, y, z, w; }; \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }                         \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMULATOR_VECTOR_TYPES(int, int)
EMULATOR_VECTOR_TYPES(uint, unsigned)
EMULATOR_VECTOR_TYPES(float, float)
EMULATOR_VECTOR_TYPES(double, double)
EMULATOR_VECTOR_TYPES(longlong, long long)
EMULATOR_VECTOR_TYPES(ulonglong, unsigned long long)
#undef EMULATOR_VECTOR_TYPES

// ---- barriers and warp collectives ----

namespace emulator {

template <class T, class... Allowed>
constexpr bool one_of = (std::is_same_v<T, Allowed> || ...);

template <class T>
using same = std::enable_if_t<true, T>;  // a parameter that converts to T instead of deducing it

template <class T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "warp collectives take 4 or 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  return bits;
}

template <class T>
auto shuffle(Collective op, Site site, unsigned mask, T value, unsigned argument, int width = 32) {
  auto promoted = +value;  // bool and char travel as int
  const uint64_t bits = collective(op, mask, to_bits(promoted), argument, width, site);
  memcpy(&promoted, &bits, sizeof promoted);
  return promoted;
}

template <class T>
T reduce(Collective op, Site site, unsigned mask, T value) {
  static_assert(one_of<T, int, unsigned>, "__reduce_*_sync takes int or unsigned");
  return static_cast<T>(
      collective(op, mask, static_cast<uint64_t>(static_cast<int64_t>(value)), 0, 32, site));
}

constexpr unsigned mask_or_full(unsigned mask = 0xFFFFFFFFu) { return mask; }

inline uint64_t vote(Collective op, Site site, unsigned mask, bool predicate) {
  return collective(op, mask, predicate, 0, 32, site);
}

}  // namespace emulator

// Macros, so that messages carry the caller's line.
#define EMULATOR_OP(name) emulator::Collective::name, EMULATOR_SITE
#define __syncthreads() ((void)emulator::barrier(emulator::Vote::none, false, EMULATOR_SITE))
#define __syncthreads_count(p) emulator::barrier(emulator::Vote::count, !!(p), EMULATOR_SITE)
#define __syncthreads_or(p) emulator::barrier(emulator::Vote::any, !!(p), EMULATOR_SITE)
#define __syncthreads_and(p) emulator::barrier(emulator::Vote::all, !!(p), EMULATOR_SITE)
#define __syncwarp(...) \
  ((void)emulator::vote(EMULATOR_OP(sync_warp), emulator::mask_or_full(__VA_ARGS__), false))
#define __ballot_sync(mask, p) ((unsigned)emulator::vote(EMULATOR_OP(ballot), mask, !!(p)))
#define __any_sync(mask, p) ((int)emulator::vote(EMULATOR_OP(any), mask, !!(p)))
#define __all_sync(mask, p) ((int)emulator::vote(EMULATOR_OP(all), mask, !!(p)))
#define __match_any_sync(mask, value)                                                                     \
  ((unsigned)emulator::collective(emulator::Collective::match_any, mask, emulator::to_bits(value), 0, 32, \
                                  EMULATOR_SITE))
#define __reduce_add_sync(mask, value) emulator::reduce(EMULATOR_OP(reduce_add), mask, value)
#define __reduce_min_sync(mask, value) emulator::reduce(EMULATOR_OP(reduce_min), mask, value)
#define __reduce_max_sync(mask, value) emulator::reduce(EMULATOR_OP(reduce_max), mask, value)
#define __reduce_and_sync(mask, value) emulator::reduce(EMULATOR_OP(reduce_and), mask, value)
#define __reduce_or_sync(mask, value) emulator::reduce(EMULATOR_OP(reduce_or), mask, value)
#define __reduce_xor_sync(mask, value) emulator::reduce(EMULATOR_OP(reduce_xor), mask, value)
#define __shfl_sync(mask, ...) emulator::shuffle(EMULATOR_OP(shuffle), mask, __VA_ARGS__)
#define __shfl_up_sync(mask, ...) emulator::shuffle(EMULATOR_OP(shuffle_up), mask, __VA_ARGS__)
#define __shfl_down_sync(mask, ...) emulator::shuffle(EMULATOR_OP(shuffle_down), mask, __VA_ARGS__)
#define __shfl_xor_sync(mask, ...) emulator::shuffle(EMULATOR_OP(shuffle_xor), mask, __VA_ARGS__)

// ---- atomics and fences ----

namespace emulator {

// Reads *address, writes update(old), returns old.  A single OS thread needs no lock, but ThreadSanitizer
// must see that the access is atomic, and relaxed: atomics order no other memory.
template <class T, class Update>
T read_modify_write(T *address, Update update) {
  maybe_preempt();
#ifdef EMULATOR_TSAN
  T old, desired;
  __atomic_load(address, &old, __ATOMIC_RELAXED);
  do desired = update(old);
  while (!__atomic_compare_exchange(address, &old, &desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
#else
  const T old = *address;
  *address = update(old);
  return old;
#endif
}

// Sums of integers wrap round, also where the sanitizer forbids that to ordinary arithmetic.
template <class T>
T wrapping_add(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    using U = std::make_unsigned_t<T>;
    return static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
  } else {
    return a + b;
  }
}

template <class T>
T wrapping_negate(T a) {
  return static_cast<T>(0u - static_cast<std::make_unsigned_t<T>>(a));
}

}  // namespace emulator

#define EMULATOR_ATOMIC(name, expression, ...)                                              \
  template <class T>                                                                        \
  T name(T *address, emulator::same<T> value) {                                             \
    static_assert(emulator::one_of<T, __VA_ARGS__>, #name " does not exist for this type"); \
    return emulator::read_modify_write(address, [=](T old) -> T { return expression; });    \
  }
using emulator_ull = unsigned long long;
EMULATOR_ATOMIC(atomicAdd, emulator::wrapping_add(old, value), int, unsigned, emulator_ull, float, double)
EMULATOR_ATOMIC(atomicSub, emulator::wrapping_add(old, emulator::wrapping_negate(value)), int, unsigned)
EMULATOR_ATOMIC(atomicMin, value < old ? value : old, int, unsigned, long long, emulator_ull)
EMULATOR_ATOMIC(atomicMax, value > old ? value : old, int, unsigned, long long, emulator_ull)
EMULATOR_ATOMIC(atomicAnd, old &value, int, unsigned, emulator_ull)
EMULATOR_ATOMIC(atomicOr, old | value, int, unsigned, emulator_ull)
EMULATOR_ATOMIC(atomicXor, old ^ value, int, unsigned, emulator_ull)
EMULATOR_ATOMIC(atomicExch, value, int, unsigned, emulator_ull, float)
#undef EMULATOR_ATOMIC

template <class T>
T atomicCAS(T *address, emulator::same<T> compare, emulator::same<T> value) {
  static_assert(emulator::one_of<T, int, unsigned, emulator_ull, unsigned short>,
                "atomicCAS does not exist for this type");
  return emulator::read_modify_write(address, [=](T old) { return old == compare ? value : old; });
}

inline void __threadfence() { emulator::maybe_preempt(); }
inline void __threadfence_block() { emulator::maybe_preempt(); }

// ---- integers ----

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int i = 0; i < 32; ++i) reversed |= (x >> i & 1u) << (31 - i);
  return reversed;
}
inline unsigned long long __brevll(unsigned long long x) {
  return static_cast<unsigned long long>(__brev(static_cast<unsigned>(x))) << 32 |
         __brev(static_cast<unsigned>(x >> 32));
}

template <class T>
T __ldg(const T *address) {
  return *address;
}

// ---- minimum and maximum ----

// Mixed integers convert as in C.  As on the device, a NaN loses against a number and -0 is smaller than +0,
// which neither std::min nor fminf promises.
template <class A, class B>
auto min(A a, B b) {
  static_assert(std::is_integral_v<A> == std::is_integral_v<B>,
                "min of an integer and a float is ambiguous in CUDA");
  using T = std::common_type_t<A, B>;
  const T x = static_cast<T>(a), y = static_cast<T>(b);
  if constexpr (std::is_floating_point_v<T>) {
    if (x != x) return y;
    if (y != y) return x;
    if (x == y) return std::signbit(x) ? x : y;
  }
  return y < x ? y : x;
}

template <class A, class B>
auto max(A a, B b) {
  static_assert(std::is_integral_v<A> == std::is_integral_v<B>,
                "max of an integer and a float is ambiguous in CUDA");
  using T = std::common_type_t<A, B>;
  const T x = static_cast<T>(a), y = static_cast<T>(b);
  if constexpr (std::is_floating_point_v<T>) {
    if (x != x) return y;
    if (y != y) return x;
    if (x == y) return std::signbit(x) ? y : x;
  }
  return x < y ? y : x;
}

// ---- floating point ----

namespace emulator {

template <class To, class From>
To reinterpret(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  memcpy(&result, &value, sizeof result);
  return result;
}

}  // namespace emulator

inline int __float_as_int(float x) { return emulator::reinterpret<int>(x); }
inline unsigned __float_as_uint(float x) { return emulator::reinterpret<unsigned>(x); }
inline float __int_as_float(int x) { return emulator::reinterpret<float>(x); }
inline float __uint_as_float(unsigned x) { return emulator::reinterpret<float>(x); }
inline long long __double_as_longlong(double x) { return emulator::reinterpret<long long>(x); }
inline double __longlong_as_double(long long x) { return emulator::reinterpret<double>(x); }

// Rounded to nearest and never contracted; the host is built with -ffp-contract=off, so that holds for + and
// * as well.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __drcp_rn(double a) { return 1.0 / a; }
inline double __dsqrt_rn(double a) { return std::sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __double2float_rn(double a) { return static_cast<float>(a); }
inline float __int2float_rn(int a) { return static_cast<float>(a); }
inline float __uint2float_rn(unsigned a) { return static_cast<float>(a); }
inline float __ll2float_rn(long long a) { return static_cast<float>(a); }
inline float __ull2float_rn(unsigned long long a) { return static_cast<float>(a); }
inline double __ll2double_rn(long long a) { return static_cast<double>(a); }
inline double __ull2double_rn(unsigned long long a) { return static_cast<double>(a); }

// Good to a few units in the last place, as on the device; not the same last bits.
inline float rsqrtf(float a) { return 1.0f / std::sqrt(a); }
inline double rsqrt(double a) { return 1.0 / std::sqrt(a); }

using std::isfinite;
using std::isinf;
using std::isnan;
using std::signbit;
