// See receive_queue.h.
#include "kernel/net/tcp/receive_queue.h"

#include <algorithm>

namespace husk::net::tcp {

using packet::Packet;
using packet::PacketPtr;

void PacketChain::charge(Packet& packet) {
  u64 cost = packet.cost();
  size_ += packet.size();
  cost_ += cost;
  memory_.take(cost);
}

void PacketChain::discharge(Packet& packet) {
  u64 cost = packet.cost();
  size_ -= packet.size();
  cost_ -= cost;
  memory_.give(cost);
}

// Copies a payload that fills less than half of its buffers into the room behind the last byte.
bool PacketChain::merge(Packet& packet) {
  Packet* last = packets_.back();
  u32 size = packet.size();
  if (last == nullptr || u64{size} * 2 > packet.cost() || last->tail_room() < size) return false;
  packet.copy_out(0, last->extend_back(size), size);
  size_ += size;
  return true;
}

void PacketChain::push_back(PacketPtr packet) {
  if (merge(*packet)) return;
  charge(*packet);
  packets_.push_back(packet.release());
}

void PacketChain::push_front(PacketPtr packet) {
  charge(*packet);
  packets_.push_front(packet.release());
}

void PacketChain::take_all(PacketChain& from) {
  while (Packet* packet = from.packets_.pop_front()) {
    from.discharge(*packet);
    push_back(PacketPtr(packet));
  }
}

Result<size_t> PacketChain::copy_out(vfs::IoBuffer& to, bool keep) {
  size_t done = 0;
  for (Packet& packet : packets_) {
    for (const packet::Slice& slice : packet.slices()) {
      if (to.remaining() == 0) break;
      size_t wanted = std::min<size_t>(slice.size, to.remaining());
      auto got = to.put(slice.data(), wanted);
      if (!got.ok() && done == 0) return got.error();
      done += got.ok() ? *got : 0;
      if (!got.ok() || *got < wanted) goto out;
    }
    if (to.remaining() == 0) break;
  }
out:
  if (!keep) drop(done);
  return done;
}

size_t PacketChain::drop(size_t bytes) {
  size_t done = 0;
  while (done < bytes && !packets_.empty()) {
    Packet* packet = packets_.front();
    discharge(*packet);
    if (packet->size() <= bytes - done) {
      done += packet->size();
      packet->unlink();
      delete packet;
      continue;
    }
    packet->trim_front(static_cast<u32>(bytes - done));
    charge(*packet);
    done = bytes;
  }
  return done;
}

void PacketChain::clear() {
  while (Packet* packet = packets_.front()) {
    discharge(*packet);
    packet->unlink();
    delete packet;
  }
}

}  // namespace husk::net::tcp
