// Big-endian fields of wire formats (network byte order, RFC 1700 "Data Notation"), as types: a host number cannot get into a header by accident.
//
// They are bytes: aligned to 1, trivially copyable, nothing uninitialised is hidden. Reading gives the host's number, assigning takes it.
#pragma once

#include <string.h>

#include <span>
#include <type_traits>

#include "base/types.h"

namespace husk::wire {

constexpr u16 swap_bytes(u16 value) { return __builtin_bswap16(value); }
constexpr u32 swap_bytes(u32 value) { return __builtin_bswap32(value); }
constexpr u64 swap_bytes(u64 value) { return __builtin_bswap64(value); }

template <typename T>
class BigEndian {
 public:
  BigEndian() = default;
  BigEndian(T value) { *this = value; }  // NOLINT: implicit by design
  BigEndian& operator=(T value) {
    value = swap_bytes(value);
    memcpy(bytes_, &value, sizeof(T));
    return *this;
  }
  operator T() const { return get(); }  // NOLINT: implicit by design
  T get() const {
    T value;
    memcpy(&value, bytes_, sizeof(T));
    return swap_bytes(value);
  }
  // The bytes as they stand in memory, as a number of this machine: what checksums and comparisons of equality may work on.
  T raw() const {
    T value;
    memcpy(&value, bytes_, sizeof(T));
    return value;
  }
  static BigEndian from_raw(T value) {
    BigEndian result;
    memcpy(result.bytes_, &value, sizeof(T));
    return result;
  }

 private:
  u8 bytes_[sizeof(T)];
};

using Be16 = BigEndian<u16>;
using Be32 = BigEndian<u32>;
using Be64 = BigEndian<u64>;
static_assert(sizeof(Be16) == 2 && sizeof(Be32) == 4 && sizeof(Be64) == 8 && alignof(Be64) == 1);
static_assert(std::is_trivially_copyable_v<Be32> && std::is_trivially_default_constructible_v<Be32>);

inline u16 load_be16(const u8* from) { return reinterpret_cast<const Be16*>(from)->get(); }
inline u32 load_be32(const u8* from) { return reinterpret_cast<const Be32*>(from)->get(); }
inline void store_be16(u8* to, u16 value) { *reinterpret_cast<Be16*>(to) = value; }
inline void store_be32(u8* to, u32 value) { *reinterpret_cast<Be32*>(to) = value; }

// A wire struct (aligned to 1) at `offset`, or null if it does not lie wholly within `bytes`.
template <typename T>
const T* view_at(std::span<const u8> bytes, size_t offset = 0) {
  static_assert(alignof(T) == 1 && std::is_trivially_copyable_v<T>);
  if (offset > bytes.size() || bytes.size() - offset < sizeof(T)) return nullptr;
  return reinterpret_cast<const T*>(bytes.data() + offset);
}
template <typename T>
T* place_at(std::span<u8> bytes, size_t offset = 0) {
  return const_cast<T*>(view_at<T>(bytes, offset));
}

}  // namespace husk::wire
