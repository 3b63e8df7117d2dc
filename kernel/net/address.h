// Addresses of hosts and of the ends of a connection. One form for both families: IPv4 is held as ::ffff:a.b.c.d (RFC 4291 §2.5.5.2).
#pragma once

#include <string.h>

#include "base/types.h"

namespace husk::net {

struct IpAddress {
  u8 bytes[16] = {};  // network order
  bool operator==(const IpAddress& other) const { return ((word(0) ^ other.word(0)) | (word(8) ^ other.word(8))) == 0; }

  static constexpr IpAddress v4(u8 a, u8 b, u8 c, u8 d) { return {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d}}; }
  static IpAddress v4(const void* network_order) {
    IpAddress result = v4(0, 0, 0, 0);
    memcpy(result.bytes + 12, network_order, 4);
    return result;
  }
  static IpAddress v6(const void* network_order) {
    IpAddress result;
    memcpy(result.bytes, network_order, 16);
    return result;
  }
  bool is_v4() const { return word(0) == 0 && static_cast<u32>(word(8)) == 0xffff0000; }
  const u8* v4_bytes() const { return bytes + 12; }
  bool is_any() const { return word(0) == 0 && (word(8) == 0 || word(8) == 0xffff0000); }  // of its family
  bool is_loopback() const;
  bool is_multicast() const;
  bool is_link_local() const;  // 169.254/16, fe80::/10
  bool is_limited_broadcast() const { return *this == v4(255, 255, 255, 255); }
  bool in_network(const IpAddress& network, u32 prefix_bits) const;  // prefix_bits of its own family: 0..32 or 0..128
  u64 word(u32 at) const {                                           // 8 bytes as they stand in memory: for comparing and hashing
    u64 value;
    __builtin_memcpy(&value, bytes + at, 8);
    return value;
  }
};

struct Endpoint {
  IpAddress address;
  u16 port = 0;       // host order
  u32 interface = 0;  // scope of a link-local address, or SO_BINDTODEVICE: Interface::index; 0: any
  bool operator==(const Endpoint&) const = default;
};

// The two ends of a connection, seen from here.
struct Flow {
  Endpoint local, remote;
  bool operator==(const Flow&) const = default;
};

enum class Family : u8 { v4, v6 };

}  // namespace husk::net
