// A network device as the stack sees it: frames in, frames out, no interrupts. Drivers implement it; tests and the simulator too.
#pragma once

#include "kernel/packet/packet.h"

namespace husk::packet {

class NetDevice {
 public:
  struct Properties {
    u8 mac[6] = {};
    u16 mtu = 1500;         // of IP, without the ethernet header
    bool ethernet = true;   // false: IP packets without a link header (loopback)
    bool checksum = false;  // takes Checksum::partial
    bool tcp4_segmentation = false, tcp6_segmentation = false;
    u32 segmentation_max = 65535;  // bytes of one packet to be segmented, headers included
  };
  virtual const Properties& properties() const = 0;

  // The next received packet, or null. Each is one frame, or what the device merged of one TCP stream (segment_size says of which size).
  virtual PacketPtr receive() = 0;
  // Takes the packet; false (and the packet stays) while the device's queue is full. Nothing moves before flush().
  virtual bool transmit(PacketPtr& packet) = 0;
  virtual void flush() = 0;
  // True once after transmit() was refused and there is room again.
  virtual bool room_again() = 0;

  struct Statistics {
    u64 packets_received = 0, bytes_received = 0, packets_sent = 0, bytes_sent = 0, dropped_received = 0, dropped_sent = 0, errors = 0;
  };
  virtual Statistics statistics() const = 0;

 protected:
  ~NetDevice() = default;
};

}  // namespace husk::packet
