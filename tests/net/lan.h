// A simulated ethernet in virtual time: ports that are packet::NetDevices, joined by a switch, each with its own line that is slow, long, lossy, or worse.
//
// All chance comes from one seed, so a run can be repeated exactly. What is on the line are plain frames of bytes: a port does in software what a device
// with checksum offload and TCP segmentation does (nic.h), unless its port is told to hand over large packets as they are, as between machines of one host.
#pragma once

#include <stdint.h>

#include <deque>
#include <memory>
#include <queue>
#include <random>
#include <vector>

#include "kernel/packet/net_device.h"

namespace husk::simulation {

constexpr u64 kMillisecond = 1'000'000, kSecond = 1000 * kMillisecond, kNever = ~u64{0};
using Bytes = std::vector<u8>;

class Random {
 public:
  explicit Random(u64 seed) : engine_(seed) {}
  u64 next() { return engine_(); }
  u64 below(u64 limit) { return limit == 0 ? 0 : engine_() % limit; }
  u64 between(u64 low, u64 high) { return low + below(high - low + 1); }
  bool chance(u32 per_million) { return per_million != 0 && below(1'000'000) < per_million; }
  // Small and large values alike: uniform in the number of digits.
  u64 magnitude(u64 low, u64 high) {
    u64 limit = low;
    while (limit < high && chance(850'000)) limit *= 2;
    return between(low, limit < high ? limit : high);
  }

 private:
  std::mt19937_64 engine_;
};

// Of one direction: from a port to the switch. Probabilities per million frames.
struct Conditions {
  u64 bits_per_second = 1'000'000'000;
  u64 delay_ns = 100'000, jitter_ns = 0;
  u32 loss = 0, duplicate = 0, corrupt = 0;  // corrupt: one bit of it flips; never in ARP, which only the link's own checksum protects
  u32 reorder = 0;                           // arrives up to reorder_ns later than its time, behind what was sent after it
  u64 reorder_ns = 5 * kMillisecond;
  u32 queue_bytes = 256 * 1024;  // of the line; what does not fit is lost
  u32 ring = 256;                // of the device; what does not fit is refused
};

struct Offloads {
  bool checksum = false;      // takes and gives partial checksums
  bool segmentation = false;  // takes large TCP packets and cuts them (needs checksum)
  bool merged = false;        // the line carries large packets whole, as between machines of one host
  u32 slice = 0;              // received packets come in slices of so many bytes; 0: one
};

struct Frame {
  Bytes bytes;
  packet::Checksum checksum = packet::Checksum::unknown;
  packet::Segmentation segmentation = packet::Segmentation::none;
  u16 checksum_start = 0, checksum_offset = 0, segment_size = 0, header_size = 0;
};

class Lan;

class Port final : public packet::NetDevice {
 public:
  const Properties& properties() const override { return properties_; }
  packet::PacketPtr receive() override;
  bool transmit(packet::PacketPtr& packet) override;
  void flush() override;
  bool room_again() override;
  Statistics statistics() const override { return statistics_; }

  Conditions conditions;  // of what this port sends; may be changed while it runs
  bool plugged = true;    // pulled out: nothing goes or comes
  u64 lost = 0, line_frames = 0, line_bytes = 0;
  // When the ring has room again after transmit() was refused.
  u64 next_event_ns() const;

 private:
  friend class Lan;
  Port(Lan& lan, Properties properties, Offloads offloads) : lan_(lan), properties_(properties), offloads_(offloads) {}
  const char* violation(const packet::Packet& packet) const;
  void put_on_line(Frame frame);
  void release_ring() const;

  Lan& lan_;
  Properties properties_;
  Offloads offloads_;
  std::deque<Frame> received_;
  std::deque<Frame> ring_;           // transmitted, not flushed
  mutable std::deque<u64> leaving_;  // when each flushed frame leaves the ring
  u64 line_free_ns_ = 0, last_arrival_ns_ = 0;
  bool refused_ = false;
  Statistics statistics_;
};

class Lan {
 public:
  Lan(u64 seed, u64 start_ns) : random_(seed), now_ns_(start_ns) {}
  Port& add_port(u16 mtu, Offloads offloads, const Conditions& conditions);

  u64 now_ns() const { return now_ns_; }
  Random& random() { return random_; }
  // When the next frame arrives somewhere, or a full ring has room.
  u64 next_event_ns() const;
  // Moves the clock, and what arrives until then into the ports. Never backwards.
  void advance(u64 to_ns);
  // The first thing that a stack asked of a device and must not; null: none. The packet is dropped.
  const char* violation = nullptr;
  // A frame from nowhere, delivered to a port at once.
  void inject(Port& to, Bytes bytes) { to.received_.push_back({std::move(bytes)}); }
  // Sees every frame that arrives, for tests that look at the line.
  void (*tap)(void* context, const Port& to, const Frame& frame) = nullptr;
  void* tap_context = nullptr;

 private:
  friend class Port;
  struct Event {
    u64 at_ns, order;
    Port* from;
    std::shared_ptr<Frame> frame;
    bool operator>(const Event& other) const { return at_ns != other.at_ns ? at_ns > other.at_ns : order > other.order; }
  };
  void deliver(Port* from, const Frame& frame);

  Random random_;
  u64 now_ns_, order_ = 0;
  std::vector<std::unique_ptr<Port>> ports_;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
};

}  // namespace husk::simulation
