// The virtio network device (virtio 1.2 §5.1): frames between two queues and a packet descriptor, a TAP interface or one end of a socket pair.
//
// A frame is one read or one write, straight between guest buffers and the descriptor; only the 12-byte header is looked at, in a copy of our own.
// With mergeable buffers a received frame may fill many chains; what finds no room there waits in a buffer here until the guest offers more.
// Frames that make no sense are dropped and counted; a chain that breaks virtio's rules fails the device.
// A full descriptor holds the guest's next frame back until it is writable (unless it was handed over); nothing here ever blocks. For a moment after a
// delivery process() asks to be called again, without a doorbell: answers come soon.
#pragma once

#include <deque>

#include "abi/virtio/net.h"
#include "vmm/devices/device.h"
#include "vmm/devices/net_handed.h"

namespace husk::vmm {

class NetDevice : public Device {
 public:
  struct Link {
    int fd = -1;               // non-blocking; not owned
    bool vnet_header = false;  // frames begin with a NetHeader there, too: the other side takes part in checksums and segmentation
    u8 mac[6] = {};
    u16 mtu = 1500;
    std::function<void(u64 features)> accepted = [](u64) {};         // what the driver takes; vCPU's thread, before the first frame
    std::function<void(std::span<const iovec> frame)> capture = {};  // sees every frame, without NetHeader
  };
  struct Counters {
    u64 received = 0, sent = 0, dropped_received = 0, dropped_sent = 0;
  };
  static constexpr u32 kFramesPerRound = 64;    // each way, then the other devices get their turn
  static constexpr u64 kFrameMax = 65535 + 18;  // an IP packet that is to be segmented, with ethernet and VLAN headers

  explicit NetDevice(Link link);

  u64 features() const override;
  std::span<const u8> config() const override { return {reinterpret_cast<const u8*>(&config_), sizeof(config_)}; }
  void start(u64 accepted_features) override;
  bool process() override;
  // Power off does not wait for a peer that has stopped reading.
  bool is_drained() override { return !handed_.are_out() && (sending_ || !queues[abi::virtio::kNetTransmitQueue].has_available()); }
  void reset() override;

  // From the event loop, edge-triggered, with the mutex held.
  void set_ready(bool readable, bool writable) { readable_ |= readable, writable_ |= writable; }
  // Not 0: the guest was told of something and has not looked since; a different number for each time it was told. With the mutex held.
  u64 unheeded() const { return u64{queues[abi::virtio::kNetReceiveQueue].unheeded()} << 32 | queues[abi::virtio::kNetTransmitQueue].unheeded(); }
  // While set, process() is called again soon, come what may: no doorbell is asked for. With the mutex held.
  void set_polled(bool polled) { polled_ = polled; }
  // The last `most` frames in the queue become write_handed()'s, if there are at least `least`; those before them are sent here. Until they are written
  // nothing else is sent. True: there are such. With the mutex held.
  bool hand_over(u32 least, u32 most);
  // Any thread, without the mutex: how many it wrote. A frame that the descriptor does not take at once is lost, as on a wire.
  size_t write_handed();
  const Counters& counters() const { return counters_; }

 private:
  enum class Sent { done, later };
  bool accepted(u32 feature) const { return (accepted_ & abi::virtio::feature_bit(feature)) != 0; }
  void expect_answer();
  bool awaits_answer();
  bool transmit();
  bool send_outgoing();
  bool split(const Chain& chain);
  bool is_sendable(abi::virtio::NetHeader& header, u64 frame_size) const;
  bool prepare(const Chain& chain);
  ssize_t write_frame(std::span<const iovec> parts) const;
  Sent send(const Chain& chain);
  bool take_back();

  bool receive();
  void take_chains();
  u64 collect_room();
  bool read_frame();
  bool is_receivable(abi::virtio::NetHeader& header, u64 frame_size) const;
  bool can_wait_for_room() const;
  bool deliver();
  void scatter(u64 offset, std::span<const u8> bytes);
  void show(u64 frame_size);

  const Link link_;
  abi::virtio::NetConfig config_{};
  u64 accepted_ = 0;
  u64 frame_max_ = 0;  // of received frames
  bool readable_ = true, writable_ = true, closed_ = false, polled_ = false;
  abi::virtio::NetHeader header_{};  // of the frame in work
  std::vector<iovec> vectors_;

  Chain outgoing_;
  u64 answer_by_ns_ = 0;  // until then no doorbell is asked for: process() is called again and again; 0: no answer is expected
  u32 impatience_ = 0, deliveries_to_skip_ = 0;
  bool sending_ = false;  // outgoing_ waits for room in the descriptor
  HandedFrames handed_;
  bool handed_before_reset_ = false;

  std::deque<Chain> held_;    // receive chains, taken and not yet filled, in order
  std::vector<Chain> spare_;  // their memory, for the next ones
  u64 room_ = 0;              // bytes of held_
  u64 frame_size_ = 0;        // of a frame that was read and not delivered yet; 0: none
  u64 placed_ = 0;            // so many of its bytes are in guest buffers, the rest is in
  std::vector<u8> overflow_;
  Counters counters_;
};

}  // namespace husk::vmm
