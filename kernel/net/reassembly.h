// Fragments until their packet is whole: RFC 791 §3.2, RFC 815, RFC 8200 §4.5; overlapping ones end it (RFC 5722).
//
// Bounded in memory by what the fragments really hold; the oldest packet goes. A whole packet is copied into one of its own: this path is rare.
#pragma once

#include "kernel/net/address.h"
#include "kernel/packet/packet.h"

namespace husk::net {

struct FragmentKey {
  IpAddress source, destination;
  u32 identification = 0;
  u32 interface = 0;
  u8 protocol = 0;  // IPv4 only
  bool operator==(const FragmentKey&) const = default;
};

class Reassembly {
 public:
  static constexpr u64 kTimeout = 60'000'000'000;  // RFC 1122 §3.3.2, RFC 8200 §4.5
  explicit Reassembly(u32 limit) : limit_(limit) {}
  ~Reassembly();
  // `fragment` without any header, `header` the bytes that go in front of the whole (from the first fragment). Null: not whole yet, or dropped.
  packet::PacketPtr add(const FragmentKey& key, u32 offset, bool more, std::span<const u8> header, packet::PacketPtr fragment, u64 now_ns);
  u64 next_deadline_ns() const;
  // Gives the first fragment's beginning (with its header) of one that is overdue, if it has come: for ICMP; null: nothing more is overdue.
  struct Overdue {
    packet::PacketPtr first;  // null: it never came
    u32 interface = 0;
  };
  bool expire(u64 now_ns, Overdue* out);
  u32 memory() const { return memory_; }
  u64 failed() const { return failed_; }

 private:
  static constexpr u32 kHeaderMax = 60;
  static constexpr u32 kWholeCost = 2 * kKiB;  // charged for each, so that they are few: all are looked through
  struct Part;
  struct Whole;
  packet::PacketPtr join(Whole& whole);
  bool insert(Whole& whole, u32 offset, packet::PacketPtr fragment);
  Whole* find(const FragmentKey& key);
  Whole* create(const FragmentKey& key, u64 now_ns);
  void remove(Whole& whole);
  u32 limit_, memory_ = 0;
  u64 failed_ = 0;
  List<Whole> wholes_;  // the oldest first
};

}  // namespace husk::net
