// emulator.h -- forced in front of every kernel source: the language, and how a kernel becomes a C function.
//
// EMULATOR_EXPORT(kernel), which module.py appends for every kernel, makes two functions: one launches it
// with the void** convention of cuLaunchKernel, the other tells its parameters, for the check of the
// arguments.
#pragma once
#include <string>

#include "cuda_language.h"

namespace emulator {

// "float*" -> "f4*", "const int*" -> "const i4*", long long -> "i8"; s: a structure.
template <class T>
std::string describe() {
  if constexpr (std::is_pointer_v<T>) {
    using Target = std::remove_pointer_t<T>;
    return (std::is_const_v<Target> ? "const " : "") + describe<std::remove_cv_t<Target>>() + "*";
  } else {
    const char *kind = "s";
    if constexpr (std::is_floating_point_v<T>) kind = "f";
    else if constexpr (std::is_integral_v<T>) kind = std::is_signed_v<T> ? "i" : "u";
    return kind + std::to_string(sizeof(T));
  }
}

template <class... Parameters>
std::string describe_parameters(void (*)(Parameters...)) {
  std::string all;
  ((all += describe<std::remove_cv_t<Parameters>>() + ","), ...);
  return all;
}

template <class Function>
struct Call;

template <class... Parameters>
struct Call<void (*)(Parameters...)> {
  void (*kernel)(Parameters...);
  void **arguments;

  template <size_t... I>
  void invoke(std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_cv_t<Parameters> *>(arguments[I])...);
  }
  static void run(void *call) { static_cast<Call *>(call)->invoke(std::index_sequence_for<Parameters...>{}); }
};

}  // namespace emulator

#define EMULATOR_EXPORT(kernel)                                                                   \
  extern "C" __attribute__((visibility("default"))) int emulator_launch_##kernel(                 \
      const emulator::LaunchOptions *options, void **arguments, char *error, size_t error_size) { \
    emulator::Call<decltype(&kernel)> call{&kernel, arguments};                                   \
    return emulator::launch(*options, call.run, &call, error, error_size);                        \
  }                                                                                               \
  extern "C" __attribute__((visibility("default"))) const char *emulator_parameters_##kernel() {  \
    static const std::string text = emulator::describe_parameters(&kernel);                       \
    return text.c_str();                                                                          \
  }
