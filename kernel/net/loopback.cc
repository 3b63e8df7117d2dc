// See kernel/net/loopback.h.
#include "kernel/net/loopback.h"

namespace husk::net {

using packet::Packet;
using packet::PacketPtr;

Loopback::Loopback() {
  properties_.mtu = 65535;  // what the total size of an IPv4 header can say
  properties_.ethernet = false;
  properties_.checksum = properties_.tcp4_segmentation = properties_.tcp6_segmentation = true;
}

Loopback::~Loopback() {
  while (Packet* packet = queue_.pop_front()) delete packet;
}

PacketPtr Loopback::receive() {
  PacketPtr packet(queue_.pop_front());
  if (!packet) return packet;
  --queued_;
  ++statistics_.packets_received;
  statistics_.bytes_received += packet->size();
  return packet;
}

bool Loopback::transmit(PacketPtr& packet) {
  if (queued_ >= kQueue) return false;
  ++queued_;
  ++statistics_.packets_sent;
  statistics_.bytes_sent += packet->size();
  queue_.push_back(packet.release());
  return true;
}

}  // namespace husk::net
