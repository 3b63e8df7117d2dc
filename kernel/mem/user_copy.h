// The only way to the program's memory. A bad address gives EFAULT; it never faults the kernel.
//
// Demand paging happens underneath: a copy may allocate, and may touch files. Hosted builds treat addresses as pointers.
#pragma once

#include "base/result.h"
#include "base/types.h"
#include "base/vec.h"

namespace husk::mem {

// A program's address with the type that is expected there.
template <typename T>
struct UserPtr {
  u64 address = 0;
  UserPtr() = default;
  explicit UserPtr(u64 a) : address(a) {}
  explicit operator bool() const { return address != 0; }
  UserPtr operator+(i64 elements) const { return UserPtr(address + static_cast<u64>(elements) * sizeof(T)); }
};

[[nodiscard]] Result<void> copy_from_user(void* to, u64 from, size_t size);
[[nodiscard]] Result<void> copy_to_user(u64 to, const void* from, size_t size);
[[nodiscard]] Result<void> clear_user(u64 to, size_t size);
// How many bytes were copied before the first bad one (0 possible); for read(2) and write(2).
size_t copy_from_user_partial(void* to, u64 from, size_t size);
size_t copy_to_user_partial(u64 to, const void* from, size_t size);
// NUL-terminated, at most `limit` bytes with the NUL, else ENAMETOOLONG.
Result<String> string_from_user(u64 from, size_t limit);
// Atomic 32-bit access for futexes; EFAULT, and EINVAL if not aligned.
Result<u32> load_user_u32(u64 address);
Result<u32> compare_exchange_user_u32(u64 address, u32 expected, u32 desired);  // gives the old value

// For the page-fault upcall: where the kernel goes on if the access at `rip` cannot be made possible; 0: not one of ours.
u64 user_copy_fixup(u64 rip);

template <typename T>
Result<T> read_user(UserPtr<const T> from) {
  T value;
  TRY(copy_from_user(&value, from.address, sizeof(T)));
  return value;
}
template <typename T>
Result<T> read_user(UserPtr<T> from) {
  return read_user(UserPtr<const T>(from.address));
}
template <typename T>
Result<void> write_user(UserPtr<T> to, const T& value) {
  return copy_to_user(to.address, &value, sizeof(T));
}

}  // namespace husk::mem
