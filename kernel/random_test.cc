#include "kernel/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <vector>

#include "kernel/random_internal.h"

namespace husk {
namespace {

std::vector<u8> block(const u32 (&key)[8], u32 counter, const u32 (&nonce)[3]) {
  u8 out[64];
  random_internal::chacha20_block(key, counter, nonce, out);
  return {out, out + 64};
}

std::vector<u8> from_hex(const char* hex) {
  std::vector<u8> bytes;
  for (; *hex != 0; hex += 2) bytes.push_back(static_cast<u8>(std::stoi(std::string(hex, 2), nullptr, 16)));
  return bytes;
}

TEST(chacha20, rfc8439_2_3_2_block_function) {
  u32 key[8];
  for (u32 i = 0; i < 8; ++i) key[i] = 0x03020100 + 0x04040404 * i;
  EXPECT_EQ(block(key, 1, {0x09000000, 0x4a000000, 0}), from_hex("10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
                                                                 "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"));
}

TEST(chacha20, rfc8439_a_1_vectors_1_and_2) {
  u32 key[8] = {};
  EXPECT_EQ(block(key, 0, {0, 0, 0}), from_hex("76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
                                               "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"));
  EXPECT_EQ(block(key, 1, {0, 0, 0}), from_hex("9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
                                               "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"));
}

TEST(random, sizes_around_block_boundaries_fill_exactly_what_was_asked) {
  u8 seed[32] = {1, 2, 3};
  init_random(seed);
  for (size_t size : {0u, 1u, 31u, 32u, 33u, 95u, 96u, 97u, 1000u}) {
    std::vector<u8> bytes(size + 8, 0xee);
    random_bytes(bytes.data(), size);
    EXPECT_TRUE(std::all_of(bytes.begin() + static_cast<long>(size), bytes.end(), [](u8 b) { return b == 0xee; }));
    if (size < 31) continue;
    EXPECT_FALSE(std::all_of(bytes.begin(), bytes.begin() + 31, [](u8 b) { return b == 0xee; }));
  }
}

TEST(random, values_do_not_repeat) {
  u8 seed[32] = {};
  init_random(seed);
  std::set<u64> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(random_u64());
  EXPECT_EQ(seen.size(), 1000u);
}

}  // namespace
}  // namespace husk
