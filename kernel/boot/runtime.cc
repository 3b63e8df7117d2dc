// What the compiler and libstdc++'s headers expect of a C library, and nothing more. Compiled with -fno-builtin.
//
// rep movsb/stosb is the fastest way without vector registers for all but small sizes (ERMS, FSRM); small ones are done by
// two overlapping moves of the same width.
#include "base/panic.h"
#include "base/types.h"

namespace {

using husk::u16;
using husk::u32;
using husk::u64;
using husk::u8;

constexpr size_t kSmall = 32;

// SAFETY: may_alias and packed: any address, any object.
template <typename T>
struct [[gnu::packed, gnu::may_alias]] Word {
  T value;
};
template <typename T>
T load(const void* from) {
  return static_cast<const Word<T>*>(from)->value;
}
template <typename T>
void store(void* to, T value) {
  static_cast<Word<T>*>(to)->value = value;
}

// First and last word cover everything from sizeof(T) to 2 * sizeof(T); all loads come before the stores.
template <typename T>
void move_pair(u8* to, const u8* from, size_t size) {
  T first = load<T>(from), last = load<T>(from + size - sizeof(T));
  store(to, first);
  store(to + size - sizeof(T), last);
}

void move_small(u8* to, const u8* from, size_t size) {
  if (size > 16) {
    u64 a = load<u64>(from), b = load<u64>(from + 8), c = load<u64>(from + size - 16), d = load<u64>(from + size - 8);
    store(to, a);
    store(to + 8, b);
    store(to + size - 16, c);
    store(to + size - 8, d);
  } else if (size >= 8) {
    move_pair<u64>(to, from, size);
  } else if (size >= 4) {
    move_pair<u32>(to, from, size);
  } else if (size >= 2) {
    move_pair<u16>(to, from, size);
  } else if (size == 1) {
    *to = *from;
  }
}

}  // namespace

// Declared here and not by <string.h>, whose C++ forms of memchr() differ.
extern "C" {

void* memcpy(void* to, const void* from, size_t size) {
  if (size <= kSmall) {
    move_small(static_cast<u8*>(to), static_cast<const u8*>(from), size);
    return to;
  }
  void* result = to;
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
  return result;
}

void* memmove(void* to, const void* from, size_t size) {
  u8* target = static_cast<u8*>(to);
  const u8* source = static_cast<const u8*>(from);
  if (size <= kSmall || static_cast<size_t>(target - source) >= size) return memcpy(to, from, size);
  while (size >= sizeof(u64)) {  // overlapping and upwards: from the end
    size -= sizeof(u64);
    store(target + size, load<u64>(source + size));
  }
  while (size-- > 0) target[size] = source[size];
  return to;
}

void* memset(void* to, int value, size_t size) {
  u8* target = static_cast<u8*>(to);
  if (size < 8 || size > kSmall) {
    void* cursor = to;
    asm volatile("rep stosb" : "+D"(cursor), "+c"(size) : "a"(value) : "memory");
    return to;
  }
  u64 pattern = static_cast<u8>(value) * 0x0101010101010101u;
  for (size_t at = 0; at + 8 < size; at += 8) store(target + at, pattern);
  store(target + size - 8, pattern);
  return to;
}

int memcmp(const void* a, const void* b, size_t size) {
  const u8* x = static_cast<const u8*>(a);
  const u8* y = static_cast<const u8*>(b);
  for (; size >= 8 && load<u64>(x) == load<u64>(y); size -= 8, x += 8, y += 8) {}
  for (; size > 0; --size, ++x, ++y) {
    if (*x != *y) return *x < *y ? -1 : 1;
  }
  return 0;
}

void* memchr(const void* in, int value, size_t size) {
  const u8* at = static_cast<const u8*>(in);
  for (; size > 0; --size, ++at) {
    if (*at == static_cast<u8>(value)) return const_cast<u8*>(at);
  }
  return nullptr;
}

size_t strlen(const char* text) {
  size_t length = 0;
  while (text[length] != '\0') ++length;
  return length;
}

size_t strnlen(const char* text, size_t limit) {
  size_t length = 0;
  while (length < limit && text[length] != '\0') ++length;
  return length;
}

char* strchr(const char* text, int value) {
  for (;; ++text) {
    if (*text == static_cast<char>(value)) return const_cast<char*>(text);
    if (*text == '\0') return nullptr;
  }
}

int strcmp(const char* a, const char* b) {
  while (*a != '\0' && *a == *b) ++a, ++b;
  return static_cast<u8>(*a) - static_cast<u8>(*b);
}

[[noreturn]] void abort() { HUSK_PANIC("abort"); }
[[noreturn]] void __cxa_pure_virtual() { HUSK_PANIC("pure virtual function called"); }

}  // extern "C"

// What libstdc++'s headers call where hosted code would throw.
namespace std {
[[noreturn]] void __throw_length_error(const char* what) { husk::panic("libstdc++", 0, what); }
[[noreturn]] void __throw_logic_error(const char* what) { husk::panic("libstdc++", 0, what); }
[[noreturn]] void __throw_invalid_argument(const char* what) { husk::panic("libstdc++", 0, what); }
[[noreturn]] void __throw_out_of_range_fmt(const char* what, ...) { husk::panic("libstdc++", 0, what); }
[[noreturn]] void __throw_bad_alloc() { HUSK_PANIC("bad_alloc"); }
[[noreturn]] void __throw_bad_array_new_length() { HUSK_PANIC("bad_array_new_length"); }
[[noreturn]] void __throw_bad_function_call() { HUSK_PANIC("bad_function_call"); }
[[noreturn]] void __throw_bad_optional_access() { HUSK_PANIC("bad_optional_access"); }
[[noreturn]] void __throw_bad_variant_access(const char* what) { husk::panic("libstdc++", 0, what); }
[[noreturn]] void __glibcxx_assert_fail(const char* file, int line, const char*, const char* condition) noexcept {
  husk::panic(file, line, condition);
}
}  // namespace std
