// undefined_behaviour.h -- where code built with -fsanitize=undefined ends up.
//
// The usual runtime prints and ends the process.  These handlers end the launch instead, so that Python gets
// an exception that names line, block and thread.  Each handler's first argument starts with the place in the
// source.
#pragma once
#include "runtime.h"

namespace {

struct Place {
  const char *file;
  uint32_t line, column;
};

struct TypeMismatch {
  Place place;
  const void *type;
  unsigned char log_alignment, access;
};

}  // namespace

#pragma GCC visibility push(hidden)
extern "C" {
#define HANDLER(name, text)                                             \
  [[noreturn]] void __ubsan_handle_##name(Place *place) {               \
    emulator::stop(text, {place->file, static_cast<int>(place->line)}); \
  }
HANDLER(add_overflow_abort, "integer overflow in an addition")
HANDLER(sub_overflow_abort, "integer overflow in a subtraction")
HANDLER(mul_overflow_abort, "integer overflow in a multiplication")
HANDLER(negate_overflow_abort, "integer overflow in a negation")
HANDLER(divrem_overflow_abort, "integer division by zero or overflow")
HANDLER(shift_out_of_bounds_abort, "shift out of bounds")
HANDLER(out_of_bounds_abort, "index out of bounds")
HANDLER(pointer_overflow_abort, "pointer overflow")
HANDLER(load_invalid_value_abort, "load of an invalid value")
HANDLER(vla_bound_not_positive_abort, "array bound not positive")
HANDLER(float_cast_overflow_abort, "overflow in a conversion from float")
HANDLER(nonnull_arg_abort, "null argument")
HANDLER(invalid_builtin_abort, "invalid argument of a builtin")
HANDLER(builtin_unreachable, "unreachable code reached")
HANDLER(missing_return, "end of a function reached without return")
#undef HANDLER

[[noreturn]] void __ubsan_handle_type_mismatch_v1_abort(TypeMismatch *data, uintptr_t pointer) {
  const uintptr_t alignment = uintptr_t(1) << data->log_alignment;
  const char *what = "access outside of the object";
  if (!pointer) what = "null pointer access";
  else if (pointer & (alignment - 1)) what = "misaligned access";
  emulator::stop(what, {data->place.file, static_cast<int>(data->place.line)});
}
}
#pragma GCC visibility pop
