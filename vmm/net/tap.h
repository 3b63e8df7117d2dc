// A TAP interface for a machine: the host's kernel is at the other end, with checksums and segmentation left to whoever is cheaper.
//
// An interface that the administrator made for the user, or one that husk makes (CAP_NET_ADMIN): then it gets an address, the guest the other one
// of the two in its subnet, and it vanishes with the descriptor. Called by cli/ before the jail; set_offloads also inside it.
#pragma once

#include <string>

#include "base/types.h"
#include "host/file_descriptor.h"

namespace husk::vmm::net {

struct TapResult {
  host::FileDescriptor fd;  // non-blocking; frames begin with a 12-byte virtio_net_hdr
  std::string name;
  u16 mtu = 1500;
  // Of an interface that was made here; else "": the guest needs an address by other means.
  std::string host_address, guest_address;
  u8 prefix_bits = 0;
};

// `name` "": a new interface, husk0, husk1, ... Throws MonitorError.
TapResult open_tap(const std::string& name);

// Which frames of the host's kernel the guest takes: accepted feature bits of virtio-net.
void set_offloads(int tap_fd, u64 features);

}  // namespace husk::vmm::net
