// How system calls are written.
//
//   HUSK_SYSCALL(dup2, int from, int to) {
//     auto file = TRY(current_file(from));
//     return TRY(current_files().install_at(to, std::move(file), false));
//   }
//
// defines the handler sys_dup2 that syscalls.def names. The body returns Result<i64>; arguments are converted from registers
// by their types (int and u32 take the low half, as on Linux; mem::UserPtr<T> takes the address). The errno becomes negative
// here and nowhere else. A new handler also needs its level in syscalls.def (anything but `missing`).
//
// EINTR: a body that was interrupted returns Error(EINTR), always. Whether the call is then begun again (SA_RESTART) is decided
// in one place from the `restart` column of syscalls.def; a body with a relative timeout takes its deadline from
// restartable_deadline() so that a repetition does not wait longer. State must be unchanged when EINTR is returned.
#pragma once
#undef linux

#include <utility>

#include "base/result.h"
#include "base/types.h"

namespace husk::linux {

constexpr u32 kSyscallSlots = 512;  // entry code checks rax < 512
using SyscallHandler = i64 (*)(u64, u64, u64, u64, u64, u64);

template <typename... A>
[[gnu::always_inline]] inline i64 call_body(Result<i64> (*body)(A...), u64 a, u64 b, u64 c, u64 d, u64 e, u64 f) {
  static_assert(sizeof...(A) <= 6);
  const u64 registers[6] = {a, b, c, d, e, f};
  auto call = [&]<size_t... I>(std::index_sequence<I...>) { return body(static_cast<A>(registers[I])...); };
  Result<i64> result = call(std::index_sequence_for<A...>{});
  return result.ok() ? result.value() : -static_cast<i64>(result.error().code());
}

}  // namespace husk::linux

#define HUSK_SYSCALL(name, ...)                                                                                                 \
  static ::husk::Result<::husk::i64> name##_body(__VA_ARGS__);                                                                  \
  extern "C" ::husk::i64 sys_##name(::husk::u64 a, ::husk::u64 b, ::husk::u64 c, ::husk::u64 d, ::husk::u64 e, ::husk::u64 f) { \
    return ::husk::linux::call_body(name##_body, a, b, c, d, e, f);                                                             \
  }                                                                                                                             \
  static ::husk::Result<::husk::i64> name##_body(__VA_ARGS__)
