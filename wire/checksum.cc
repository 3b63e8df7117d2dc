// The loop of the checksum: add with carry, 64 bytes a round, general registers only. Built with -O2: it runs over every byte of devices without
// checksum offload.
#include "wire/checksum.h"

namespace husk::wire {

namespace {

u64 add_with_carry(u64 sum, u64 value) {
  bool carry = __builtin_add_overflow(sum, value, &sum);
  return sum + (carry ? 1 : 0);
}

// SAFETY: reads exactly the 64 bytes that the operand names.
u64 add_block(u64 sum, const u8* bytes) {
  struct Block {
    u8 bytes[64];
  };
  asm("addq 0x00(%1), %0\n\t"
      "adcq 0x08(%1), %0\n\t"
      "adcq 0x10(%1), %0\n\t"
      "adcq 0x18(%1), %0\n\t"
      "adcq 0x20(%1), %0\n\t"
      "adcq 0x28(%1), %0\n\t"
      "adcq 0x30(%1), %0\n\t"
      "adcq 0x38(%1), %0\n\t"
      "adcq $0, %0"
      : "+r"(sum)
      : "r"(bytes), "m"(*reinterpret_cast<const Block*>(bytes))
      : "cc");
  return sum;
}

template <typename T>
T load(const u8* from) {
  T value;
  memcpy(&value, from, sizeof(T));
  return value;
}

}  // namespace

u64 sum_words(const u8* bytes, size_t size) {
  u64 sum = 0;
  for (; size >= 64; bytes += 64, size -= 64) sum = add_block(sum, bytes);
  for (; size >= 8; bytes += 8, size -= 8) sum = add_with_carry(sum, load<u64>(bytes));
  if (size & 4) sum = add_with_carry(sum, load<u32>(bytes)), bytes += 4;
  if (size & 2) sum = add_with_carry(sum, load<u16>(bytes)), bytes += 2;
  if (size & 1) sum = add_with_carry(sum, *bytes);
  return sum;
}

}  // namespace husk::wire
