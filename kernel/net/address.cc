// See kernel/net/address.h. Classes of addresses: RFC 6890, RFC 4291 §2.4.
#include "kernel/net/address.h"

namespace husk::net {

bool IpAddress::is_loopback() const {
  if (is_v4()) return bytes[12] == 127;
  return word(0) == 0 && word(8) == u64{1} << 56;
}

bool IpAddress::is_multicast() const { return is_v4() ? (bytes[12] & 0xf0) == 0xe0 : bytes[0] == 0xff; }

bool IpAddress::is_link_local() const {
  if (is_v4()) return bytes[12] == 169 && bytes[13] == 254;
  return bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80;
}

bool IpAddress::in_network(const IpAddress& network, u32 prefix_bits) const {
  if (is_v4() != network.is_v4()) return false;
  u32 from = is_v4() ? 12 : 0, whole = prefix_bits / 8, rest = prefix_bits % 8;
  if (from + whole + (rest != 0) > 16) return false;
  if (memcmp(bytes + from, network.bytes + from, whole) != 0) return false;
  if (rest == 0) return true;
  u32 mask = 0xff00u >> rest;
  return ((bytes[from + whole] ^ network.bytes[from + whole]) & mask & 0xff) == 0;
}

}  // namespace husk::net
