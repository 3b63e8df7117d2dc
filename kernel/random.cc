// ChaCha20 (RFC 8439 §2.3) with fast key erasure: each request uses the key for its own blocks and leaves a new one behind.
// General registers only; the vector registers are the program's.
#include "kernel/random.h"

#include <cpuid.h>
#include <string.h>

#include <algorithm>
#include <bit>

#include "base/panic.h"
#include "kernel/cpuid.h"
#include "kernel/random_internal.h"

namespace husk {

namespace random_internal {

static void quarter_round(u32& a, u32& b, u32& c, u32& d) {
  a += b, d = std::rotl(d ^ a, 16);
  c += d, b = std::rotl(b ^ c, 12);
  a += b, d = std::rotl(d ^ a, 8);
  c += d, b = std::rotl(b ^ c, 7);
}

void chacha20_block(const u32 (&key)[8], u32 counter, const u32 (&nonce)[3], u8 (&out)[64]) {
  const u32 start[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574, key[0],  key[1],   key[2],   key[3],
                         key[4],     key[5],     key[6],     key[7],     counter, nonce[0], nonce[1], nonce[2]};
  u32 x[16];
  memcpy(x, start, sizeof(x));
  for (int i = 0; i < 10; ++i) {
    for (int column = 0; column < 4; ++column) quarter_round(x[column], x[4 + column], x[8 + column], x[12 + column]);
    for (int column = 0; column < 4; ++column) quarter_round(x[column], x[4 + (column + 1) % 4], x[8 + (column + 2) % 4], x[12 + (column + 3) % 4]);
  }
  for (int i = 0; i < 16; ++i) x[i] += start[i];
  memcpy(out, x, sizeof(out));
}

}  // namespace random_internal

namespace {

using random_internal::chacha20_block;

constinit u32 key[8] = {};
constinit bool seeded = false;
constexpr u32 kOutput[3] = {0, 0, 0}, kMix[3] = {1, 0, 0};  // nonces keep the two uses apart

void wipe(void* memory, size_t size) {
  memset(memory, 0, size);
  asm volatile("" : : "r"(memory) : "memory");  // not a dead store
}

// The key becomes a one-way function of itself and the bytes.
void mix(std::span<const u8> bytes) {
  while (!bytes.empty()) {
    u8 chunk[32] = {}, out[64];
    size_t size = std::min(bytes.size(), sizeof(chunk));
    memcpy(chunk, bytes.data(), size);
    for (int i = 0; i < 8; ++i) {
      u32 word;
      memcpy(&word, chunk + 4 * i, sizeof(word));
      key[i] ^= word;
    }
    chacha20_block(key, static_cast<u32>(size), kMix, out);
    memcpy(key, out, sizeof(key));
    bytes = bytes.subspan(size);
  }
}

// Up to 32 bytes from the processor; what it does not give stays 0. A bad generator does not harm: it is only mixed in.
void mix_processor() {
  bool has_rdrand = (cpuid(1).ecx & bit_RDRND) != 0;
  if (!has_rdrand) return;
  u64 words[4] = {};
  for (u64& word : words)
    for (int attempt = 0; attempt < 10; ++attempt) {
      bool ok;
      asm volatile("rdrand %0" : "=r"(word), "=@ccc"(ok));
      if (ok) break;
    }
  mix({reinterpret_cast<const u8*>(words), sizeof(words)});
}

}  // namespace

void init_random(std::span<const u8> seed) {
  mix(seed);
  mix_processor();
  seeded = true;
}

void add_entropy(std::span<const u8> bytes) { mix(bytes); }

void random_bytes(void* to, size_t size) {
  HUSK_ASSERT(seeded);
  u8* out = static_cast<u8*>(to);
  u8 block[64];
  u32 old[8];
  memcpy(old, key, sizeof(old));
  chacha20_block(old, 0, kOutput, block);
  memcpy(key, block, sizeof(key));
  size_t step = std::min<size_t>(size, sizeof(block) - sizeof(key));
  memcpy(out, block + sizeof(key), step);
  // 2^32 blocks are more than one request can ask for in one go.
  for (u32 counter = 1; step < size; ++counter) {
    out += step;
    size -= step;
    HUSK_ASSERT(counter != 0);
    chacha20_block(old, counter, kOutput, block);
    step = std::min(size, sizeof(block));
    memcpy(out, block, step);
  }
  wipe(block, sizeof(block));
  wipe(old, sizeof(old));
}

u64 random_u64() {
  u64 value;
  random_bytes(&value, sizeof(value));
  return value;
}

}  // namespace husk
