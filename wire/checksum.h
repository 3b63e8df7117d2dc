// The Internet checksum (RFC 1071): over pieces of any size and parity, with pseudo headers (RFC 9293 §3.1, RFC 8200 §8.1), and its
// incremental update (RFC 1624). Whoever sends fills in finish(); whoever receives asks valid() with the checksum field included.
#pragma once

#include <span>

#include "wire/endian.h"

namespace husk::wire {

// Sum of 16-bit words as they stand in memory, carries folded in at bit 64; an odd last byte counts as if a zero followed. 8 bytes at a time.
u64 sum_words(const u8* bytes, size_t size);

class Checksum {
 public:
  Checksum() = default;
  // Pieces of one message, in order; a piece may end at an odd byte.
  void add(std::span<const u8> bytes) {
    u64 sum = sum_words(bytes.data(), bytes.size());
    if (odd_) sum = swap_bytes(fold(sum));
    add_carry(sum);
    odd_ ^= (bytes.size() & 1) != 0;
  }
  // A part of the sum that is known already, such as folded() of another message's even-sized beginning.
  void add(Be16 word) { add_carry(word.raw()); }
  void add_pseudo_v4(const u8* source, const u8* destination, u8 protocol, u32 length) {
    add_raw32(source), add_raw32(destination);
    add(Be16(protocol)), add(Be16(static_cast<u16>(length)));
  }
  void add_pseudo_v6(const u8* source, const u8* destination, u8 protocol, u32 length) {
    for (u32 i = 0; i < 16; i += 4) add_raw32(source + i), add_raw32(destination + i);
    add_carry(Be32(length).raw()), add(Be16(protocol));
  }

  // The sum itself, not complemented: what stands in the field of a packet with Checksum::partial.
  Be16 folded() const { return Be16::from_raw(fold(sum_)); }
  Be16 finish() const { return Be16::from_raw(static_cast<u16>(~fold(sum_))); }
  // For UDP, where 0 means "none" (RFC 768, RFC 8200 §8.1).
  Be16 finish_udp() const {
    Be16 result = finish();
    return result.raw() == 0 ? Be16(0xffff) : result;
  }
  // Of a message that contains its checksum.
  bool valid() const { return fold(sum_) == 0xffff; }

 private:
  static u16 fold(u64 sum) {
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<u16>((sum & 0xffff) + (sum >> 16));
  }
  void add_carry(u64 value) {
    bool carry = __builtin_add_overflow(sum_, value, &sum_);
    sum_ += carry ? 1 : 0;
  }
  void add_raw32(const u8* bytes) {
    u32 value;
    memcpy(&value, bytes, 4);
    add_carry(value);
  }
  u64 sum_ = 0;
  bool odd_ = false;  // the pieces so far end at an odd byte
};

inline Be16 checksum_of(std::span<const u8> bytes) {
  Checksum sum;
  sum.add(bytes);
  return sum.finish();
}
inline bool checksum_valid(std::span<const u8> bytes) {
  Checksum sum;
  sum.add(bytes);
  return sum.valid();
}

// RFC 1624 §3, equation 3: the checksum of a message in which one word changed, HC' = ~(~HC + ~m + m').
inline Be16 checksum_update(Be16 checksum, Be16 before, Be16 after) {
  Checksum sum;
  sum.add(Be16::from_raw(static_cast<u16>(~checksum.raw())));
  sum.add(Be16::from_raw(static_cast<u16>(~before.raw())));
  sum.add(after);
  return sum.finish();
}

}  // namespace husk::wire
