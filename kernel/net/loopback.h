// The loopback device: what is sent is received, through a bounded queue, so that nobody calls himself.
#pragma once

#include "kernel/packet/net_device.h"

namespace husk::net {

class Loopback final : public packet::NetDevice {
 public:
  static constexpr u32 kQueue = 512;
  Loopback();
  ~Loopback();
  const Properties& properties() const override { return properties_; }
  packet::PacketPtr receive() override;
  bool transmit(packet::PacketPtr& packet) override;
  void flush() override {}
  bool room_again() override { return queued_ < kQueue; }
  Statistics statistics() const override { return statistics_; }

 private:
  Properties properties_;
  packet::PacketList queue_;
  u32 queued_ = 0;
  Statistics statistics_;
};

}  // namespace husk::net
