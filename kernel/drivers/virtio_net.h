// The virtio network device (virtio 1.2 §5.1), one pair of queues, as a packet::NetDevice. Nothing but small frames is copied: the device writes received
// frames into packet buffers that then go up, and reads frames to send from the packets' own memory.
//
// Memory: few receive buffers at first, more while traffic uses them up; sent packets are given back when enough have come together, when descriptors
// run short, or before the vCPU parks. Without memory, packets are dropped and their buffers offered again.
// Interrupts: of reception, whenever polling found the queue empty (one store); of transmission, only after a packet was refused.
//
// The device is not trusted: what it says is read once and checked. A packet whose header is impossible is dropped and counted; a queue entry that
// is impossible stops the device for good. Kernel context on the one vCPU.
#pragma once

#include "abi/virtio/net.h"
#include "kernel/drivers/virtio/transport.h"
#include "kernel/packet/net_device.h"

namespace husk::drivers {

class VirtioNet final : public packet::NetDevice {
 public:
  static constexpr u16 kQueueSizeMax = 256;
  static constexpr u16 kBuffersAtFirst = 16;

  // Starts the device: it receives from now on. ENODEV: not usable; EIO: it refused; ENOMEM. It lives for ever: so does the queues' memory.
  [[gnu::cold]] static Result<Owned<VirtioNet>> create(Owned<virtio::Transport> transport);

  const Properties& properties() const override { return properties_; }
  packet::PacketPtr receive() override;
  bool transmit(packet::PacketPtr& packet) override;
  void flush() override;
  bool room_again() override;
  Statistics statistics() const override { return statistics_; }

  // Before the vCPU parks: gives back what was sent, and has the next packet announced. True: there is one.
  bool prepare_to_sleep() {
    reclaim();
    return announce_received();
  }
  bool stopped() const { return stopped_; }
  u32 receive_target() const { return receive_target_; }  // how many buffers the device shall have

 private:
  using Buffer = packet::Buffer;
  explicit VirtioNet(Owned<virtio::Transport> transport) : transport_(std::move(transport)) {}
  [[gnu::cold]] Result<void> make_queues(bool event_index);
  [[gnu::cold]] void choose_buffers();

  // --- receive
  struct Received {
    Ref<Buffer> buffer;
    u32 size = 0;
  };
  bool take(Received* received);
  packet::PacketPtr assemble(Received first);
  void copy_small(Received& part);
  bool describe(packet::Packet& packet, const abi::virtio::NetHeader& header);
  [[gnu::cold]] void drop(Received& received, u32 more);
  [[gnu::cold]] void drop(packet::Packet& packet);
  bool offer(Ref<Buffer> buffer);
  void refill();
  void grow();
  bool announce_received();
  bool has_enough();

  // --- transmit
  bool prepare(packet::Packet& packet);
  void refuse();
  void reclaim();

  [[gnu::cold]] void check_queues();

  Owned<virtio::Transport> transport_;
  Owned<virtio::Virtqueue> receive_, transmit_;
  Properties properties_;
  Statistics statistics_;
  bool takes_partial_ = false, takes_tcp4_ = false, takes_tcp6_ = false, merges_ = false;  // what was agreed for reception
  bool announced_ = false;                                                                 // an interrupt is wished for at the next packet
  bool refused_ = false, stopped_ = false;
  u32 buffer_size_ = 0;
  u32 receive_target_ = kBuffersAtFirst, receive_least_ = 0;
  u32 consumed_ = 0;             // buffers since the queue was last found empty
  u32 sent_count_ = 0;           // packets in flight
  u64 sent_bytes_ = 0;           // theirs
  Vec<Ref<Buffer>> offered_;     // by descriptor
  Vec<packet::PacketPtr> sent_;  // by descriptor
};

}  // namespace husk::drivers
