// SipHash-2-4 (Aumasson, Bernstein 2012): a keyed hash of short inputs, for numbers that a stranger must not foresee:
// initial sequence numbers, SYN cookies, ports. FlowHash: a faster keyed hash for table lookups, where a collision costs time only.
#pragma once

#include <string.h>

#include <bit>

#include "base/types.h"
#include "kernel/net/address.h"

namespace husk::net::tcp {

class SipHash {
 public:
  SipHash(u64 key0, u64 key1) : v_{key0 ^ 0x736f6d6570736575, key1 ^ 0x646f72616e646f6d, key0 ^ 0x6c7967656e657261, key1 ^ 0x7465646279746573} {}
  SipHash& add(u64 word) {
    v_[3] ^= word;
    round();
    round();
    v_[0] ^= word;
    size_ += 8;
    return *this;
  }
  SipHash& add(const Endpoint& end) {
    u64 words[2];
    memcpy(words, end.address.bytes, sizeof(words));
    return add(words[0]).add(words[1]).add(end.port);
  }
  u64 finish() {
    add(u64{size_ & 0xff} << 56);
    v_[2] ^= 0xff;
    for (int i = 0; i < 4; ++i) round();
    return v_[0] ^ v_[1] ^ v_[2] ^ v_[3];
  }

 private:
  void round();
  u64 v_[4];
  u32 size_ = 0;
};

// Multiply and fold, keyed: 3 multiplications for a flow.
class FlowHash {
 public:
  u64 key[4] = {};
  u32 of(const Flow& flow) const {
    u64 words[4];
    memcpy(words, flow.local.address.bytes, 16);
    memcpy(words + 2, flow.remote.address.bytes, 16);
    u64 ports = u64{flow.local.port} << 16 | flow.remote.port;
    u64 sum = fold(words[0] ^ key[0], words[1] ^ key[1]) ^ fold(words[2] ^ key[2], words[3] ^ key[3]);
    u64 all = fold(sum ^ key[1] ^ ports, key[2] | 1);
    return static_cast<u32>(all ^ all >> 32);
  }

 private:
  static u64 fold(u64 a, u64 b) {
    unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
    return static_cast<u64>(product) ^ static_cast<u64>(product >> 64);
  }
};

}  // namespace husk::net::tcp
