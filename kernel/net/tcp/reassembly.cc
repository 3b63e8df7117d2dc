// Reassembly of receive_queue.h. Runs only while segments are missing.
#include <algorithm>

#include "kernel/net/tcp/receive_queue.h"

namespace husk::net::tcp {

using packet::PacketPtr;

Reassembly::~Reassembly() {
  while (Block* block = blocks_.front()) remove(block);
}

void Reassembly::touch(Block* block) {
  if (block->stamp <= reported_stamp_) ++unreported_;
  block->stamp = ++stamp_;
}

void Reassembly::remove(Block* block) {
  cost_ -= block->chain.cost();
  block->unlink();
  --count_;
  delete block;
}

Reassembly::Block* Reassembly::next_of(Block* block) {
  auto after = ++List<Block>::Iterator(block);
  return after == blocks_.end() ? nullptr : &*after;
}

// The block has grown at its end: takes in the blocks that it now touches.
void Reassembly::join_following(Block* block) {
  for (Block* next; (next = next_of(block)) != nullptr && next->first <= block->end;) {
    HUSK_ASSERT(next->first == block->end);  // insert() cuts what overlaps
    cost_ -= block->chain.cost() + next->chain.cost();
    block->chain.take_all(next->chain);
    cost_ += block->chain.cost();
    block->end = next->end;
    remove(next);
  }
}

bool Reassembly::insert(SeqNum first, PacketPtr packet, SackBlock* duplicate) {
  SeqNum end = first + packet->size();
  // The last block that begins at or before `first`; usually the last of all.
  Block* before = blocks_.back();
  if (before != nullptr && before->first > first) {
    before = nullptr;
    for (Block& block : blocks_) {
      if (block.first > first) break;
      before = &block;
    }
  }
  if (before != nullptr && before->end > first) {
    *duplicate = {first, before->end < end ? before->end : end};
    touch(before);
    if (end <= before->end) return true;
    packet->trim_front(before->end - first);
    first = before->end;
  }
  // Blocks that it covers wholly give way; of one that it covers in part, it keeps the start.
  Block* after = before == nullptr ? blocks_.front() : next_of(before);
  while (after != nullptr && after->end <= end) {
    *duplicate = {after->first, after->end};
    Block* gone = after;
    after = next_of(after);
    remove(gone);
  }
  if (after != nullptr && after->first < end) {
    *duplicate = {after->first, end};
    packet->trim_back(end - after->first);
    end = after->first;
  }
  Block* block = before != nullptr && before->end == first ? before : nullptr;
  if (block == nullptr) {
    if (count_ == kBlocksMax) return false;
    auto made = make_owned<Block>(memory_);
    if (!made.ok()) return false;
    block = made->release();
    block->first = block->end = first;
    ++count_;
    if (after != nullptr) blocks_.insert_before(after, block);
    else blocks_.push_back(block);
  }
  cost_ -= block->chain.cost();
  block->chain.push_back(std::move(packet));
  cost_ += block->chain.cost();
  block->end = end;
  touch(block);
  join_following(block);
  return true;
}

void Reassembly::drain(SeqNum* next, PacketChain& to) {
  while (Block* block = blocks_.front()) {
    if (block->first > *next) return;
    if (block->end > *next) {
      cost_ -= block->chain.cost();
      block->chain.drop(*next - block->first);
      to.take_all(block->chain);
      *next = block->end;
    } else {
      cost_ -= block->chain.cost();
      block->chain.clear();
    }
    remove(block);
  }
}

u8 Reassembly::report(SackBlock* out, u8 most) {
  u32 stamps[4] = {};
  u8 count = 0;
  for (const Block& block : blocks_) {
    u8 at = count;
    while (at > 0 && stamps[at - 1] < block.stamp) --at;
    if (at == most) continue;
    for (u8 i = std::min<u8>(count, static_cast<u8>(most - 1)); i > at; --i) stamps[i] = stamps[i - 1], out[i] = out[i - 1];
    stamps[at] = block.stamp;
    out[at] = {block.first, block.end};
    if (count < most) ++count;
  }
  reported_stamp_ = stamp_;
  unreported_ = 0;
  return count;
}

}  // namespace husk::net::tcp
