// What was received and not yet read, in order; and Reassembly: what came after a gap (RFC 9293 §3.10.7.4, RFC 2018).
//
// Packets stay as they came, and are copied once, to the program. Their real cost is charged; a small payload that would pin a large buffer is copied
// behind the last byte instead, where the last buffer has room that nobody else can see.
#pragma once

#include "kernel/net/tcp/memory.h"
#include "kernel/net/tcp/segment.h"
#include "kernel/packet/packet.h"
#include "kernel/vfs/io.h"

namespace husk::net::tcp {

// Packets whose bytes follow each other, and what they cost.
class PacketChain {
 public:
  explicit PacketChain(Memory& memory) : memory_(memory) {}
  ~PacketChain() { clear(); }
  u32 size() const { return size_; }
  u64 cost() const { return cost_; }
  bool empty() const { return size_ == 0; }
  packet::PacketList& packets() { return packets_; }
  void push_back(packet::PacketPtr packet);  // merges small ones
  void push_front(packet::PacketPtr packet);
  void take_all(PacketChain& from);  // behind the own
  Result<size_t> copy_out(vfs::IoBuffer& to, bool keep);
  size_t drop(size_t bytes);
  void clear();

 private:
  void charge(packet::Packet& packet);
  void discharge(packet::Packet& packet);
  bool merge(packet::Packet& packet);
  Memory& memory_;
  packet::PacketList packets_;
  u32 size_ = 0;
  u64 cost_ = 0;
};

// Only there while there is a gap.
class Reassembly {
 public:
  static constexpr u32 kBlocksMax = 128;
  explicit Reassembly(Memory& memory) : memory_(memory) {}
  ~Reassembly();
  bool empty() const { return blocks_.empty(); }
  u64 cost() const { return cost_; }
  // Takes what is new of the bytes from `first` on; `duplicate` is a part that was there already (RFC 2883). False: dropped.
  bool insert(SeqNum first, packet::PacketPtr packet, SackBlock* duplicate);
  // Moves what follows on `next` into the queue, and `next` with it.
  void drain(SeqNum* next, PacketChain& to);
  // The blocks for an acknowledgement, the most recent first (RFC 2018 §4); gives how many.
  u8 report(SackBlock* out, u8 most);
  // How many blocks have changed since the last report; those beyond what a report holds would never be told.
  u32 unreported() const { return unreported_; }

 private:
  struct Block : ListNode<> {
    explicit Block(Memory& memory) : chain(memory) {}
    SeqNum first, end;
    u32 stamp = 0;  // when it last changed
    PacketChain chain;
  };
  void touch(Block* block);
  void remove(Block* block);
  void join_following(Block* block);
  Block* next_of(Block* block);

  Memory& memory_;
  List<Block> blocks_;  // ascending, with gaps between them
  u32 count_ = 0, stamp_ = 0, reported_stamp_ = 0, unreported_ = 0;
  u64 cost_ = 0;
};

}  // namespace husk::net::tcp
