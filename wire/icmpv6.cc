// Domain names in router advertisements.
#include "wire/icmpv6.h"

namespace husk::wire {

size_t NdpDnssl::first_name(std::span<char> out) const {
  size_t at = 0, size = 0;
  while (at < names.size() && names[at] != 0) {  // RFC 1035 §3.1: labels, each after its length; no compression here
    size_t label = names[at++];
    if (label > 63 || label > names.size() - at || size + label + 1 > out.size()) return 0;
    if (size != 0) out[size++] = '.';
    memcpy(&out[size], &names[at], label);
    at += label, size += label;
  }
  return at < names.size() ? size : 0;
}

}  // namespace husk::wire
