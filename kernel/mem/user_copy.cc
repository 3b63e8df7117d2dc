// Range checks and conversions over the instructions of user_access.S.
#include "kernel/mem/user_copy.h"

#include <string.h>

#include <algorithm>

#include "kernel/mem/user_access.h"

namespace husk::mem {

namespace {

bool in_program(u64 address, size_t size) { return address >= kUserStart && size <= kUserEnd && address <= kUserEnd - size; }

// How much of the range is below the end of the program's addresses.
size_t part_in_program(u64 address, size_t size) {
  if (address < kUserStart || address >= kUserEnd) return 0;
  return std::min<u64>(size, kUserEnd - address);
}

void* pointer(u64 address) { return reinterpret_cast<void*>(address); }

Result<u32> result_of(AccessResult access) {
  if (access.failed != 0) return Error(EFAULT);
  return static_cast<u32>(access.value);
}

}  // namespace

Result<void> copy_from_user(void* to, u64 from, size_t size) {
  if (size == 0) return {};
  if (!in_program(from, size) || husk_user_copy(to, pointer(from), size) != 0) return Error(EFAULT);
  return {};
}

Result<void> copy_to_user(u64 to, const void* from, size_t size) {
  if (size == 0) return {};
  if (!in_program(to, size) || husk_user_copy(pointer(to), from, size) != 0) return Error(EFAULT);
  return {};
}

Result<void> clear_user(u64 to, size_t size) {
  if (size == 0) return {};
  if (!in_program(to, size) || husk_user_clear(pointer(to), size) != 0) return Error(EFAULT);
  return {};
}

size_t copy_from_user_partial(void* to, u64 from, size_t size) {
  size_t part = part_in_program(from, size);
  return part == 0 ? 0 : part - husk_user_copy(to, pointer(from), part);
}

size_t copy_to_user_partial(u64 to, const void* from, size_t size) {
  size_t part = part_in_program(to, size);
  return part == 0 ? 0 : part - husk_user_copy(pointer(to), from, part);
}

// Page by page, so that a string that ends before a bad page is good; a short first piece, because most strings are.
Result<String> string_from_user(u64 from, size_t limit) {
  String text;
  char piece[256];
  for (size_t done = 0; done < limit;) {
    size_t to_page_end = kPageSize - (from + done) % kPageSize;
    size_t wanted = std::min({sizeof(piece), to_page_end, limit - done});
#if !defined(HUSK_GUEST)
    wanted = 1;  // a test's string may end where AddressSanitizer's red zone starts
#endif
    size_t got = copy_from_user_partial(piece, from + done, wanted);
    size_t length = strnlen(piece, got);
    TRY(text.append({piece, length}));
    if (length < got) return text;
    if (got < wanted) return Error(EFAULT);
    done += got;
  }
  return Error(ENAMETOOLONG);
}

Result<u32> load_user_u32(u64 address) {
  if (!is_aligned(address, 4)) return Error(EINVAL);
  if (!in_program(address, 4)) return Error(EFAULT);
  return result_of(husk_user_load_u32(address));
}

Result<u32> compare_exchange_user_u32(u64 address, u32 expected, u32 desired) {
  if (!is_aligned(address, 4)) return Error(EINVAL);
  if (!in_program(address, 4)) return Error(EFAULT);
  return result_of(husk_user_compare_exchange_u32(address, expected, desired));
}

}  // namespace husk::mem
