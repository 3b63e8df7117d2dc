// The neighbour cache of ARP and neighbour discovery: RFC 4861 §7.3's states for both (RFC 826 says nothing about aging).
//
// A bounded table; the entry unused for longest goes. Entries are made by who wants to send, and by requests that are addressed to us; these
// come without a use, so that a flood of them replaces itself. An unresolved entry keeps some packets (RFC 1122 §2.3.2.2).
#pragma once

#include "kernel/net/interface.h"

namespace husk::net {

class StackState;

enum class NeighbourState : u8 { incomplete, reachable, stale, delay, probe };

struct NeighbourEntry {
  // A datagram of 64 KiB in pieces for ethernet costs 350 KiB: each is charged for all of the pages that it has a part of.
  static constexpr u64 kQueueMax = 512 * kKiB;
  NeighbourEntry* next = nullptr;
  Interface* interface = nullptr;
  IpAddress address;
  u8 mac[6] = {};
  NeighbourState state = NeighbourState::incomplete;
  u8 probes = 0;
  bool router = false;
  u64 deadline_ns = ~u64{0};  // of the state; a reachable entry's is looked at when it is used
  u64 used_ns = 0;            // 0: never
  u64 changed_ns = 0;
  packet::PacketList queue;
  u64 queued = 0;  // what the queue costs
};

class Neighbours {
 public:
  Neighbours(StackState& stack, u32 limit) : stack_(stack), limit_(limit) {}
  ~Neighbours();
  NeighbourEntry* find(const Interface& interface, const IpAddress& address);
  // Null: no memory.
  NeighbourEntry* find_or_create(Interface& interface, const IpAddress& address);
  // An IP packet to this neighbour: sent now, or when it is resolved, or dropped.
  void send(NeighbourEntry& entry, packet::PacketPtr packet);
  // It has said this address itself. Sends what waits. `solicited`: in answer to us.
  enum class Solicited : u8 { no, yes };
  void resolved(NeighbourEntry& entry, const u8* mac, Solicited solicited);
  void forget(const Interface& interface, const IpAddress& address);
  size_t list(std::span<Neighbour> out) const;
  u32 count() const { return count_; }
  u64 next_deadline_ns() const { return next_deadline_ns_; }
  void run(u64 now_ns);

 private:
  static constexpr u32 kBuckets = 64;
  static constexpr u64 kWaitingMax = 2 * kMiB;  // strangers decide to how many neighbours we answer
  static u32 bucket_of(const IpAddress& address) {
    u64 word = address.word(8) ^ address.word(0);
    return static_cast<u32>((word * 0x9e3779b97f4a7c15) >> 58);
  }
  void arm(NeighbourEntry& entry, u64 deadline_ns);
  void due(NeighbourEntry& entry, u64 now_ns);  // may remove it
  void fail(NeighbourEntry& entry);
  packet::Packet* take(NeighbourEntry& entry);  // of what waits, the oldest; null: none
  void evict();
  void remove(NeighbourEntry& entry);
  StackState& stack_;
  u32 limit_, count_ = 0;
  u64 next_deadline_ns_ = ~u64{0};
  u64 waiting_ = 0;            // what the entries' queues cost
  packet::PacketList failed_;  // the first packet of each that did not answer
  NeighbourEntry* buckets_[kBuckets] = {};
};

}  // namespace husk::net
