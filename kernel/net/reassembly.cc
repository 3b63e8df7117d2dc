// See kernel/net/reassembly.h.
#include "kernel/net/reassembly.h"

#include <string.h>

#include <algorithm>
#include <new>

namespace husk::net {

using packet::Packet;
using packet::PacketPtr;

struct Reassembly::Part : ListNode<> {
  u32 offset = 0;
  PacketPtr data;
  u32 end() const { return offset + data->size(); }
};

struct Reassembly::Whole : ListNode<> {
  FragmentKey key;
  u64 deadline_ns = 0;
  u32 received = 0, total = 0;  // bytes; total 0: the last has not come
  u32 cost = 0;
  u8 header_size = 0;     // 0: the first has not come
  bool poisoned = false;  // had an overlap: what still comes of it is dropped with it (RFC 5722 §4)
  u8 header[kHeaderMax];
  List<Part> parts;  // by offset
};

Reassembly::~Reassembly() {
  while (Whole* whole = wholes_.front()) remove(*whole);
}

Reassembly::Whole* Reassembly::find(const FragmentKey& key) {
  for (Whole& whole : wholes_) {
    if (whole.key == key) return &whole;
  }
  return nullptr;
}

Reassembly::Whole* Reassembly::create(const FragmentKey& key, u64 now_ns) {
  auto* whole = new (std::nothrow) Whole();
  if (whole == nullptr) return nullptr;
  whole->key = key;
  whole->deadline_ns = now_ns + kTimeout;
  whole->cost = kWholeCost;
  memory_ += whole->cost;
  wholes_.push_back(whole);
  return whole;
}

void Reassembly::remove(Whole& whole) {
  while (Part* part = whole.parts.pop_front()) delete part;
  memory_ -= whole.cost;
  whole.unlink();
  delete &whole;
}

PacketPtr Reassembly::add(const FragmentKey& key, u32 offset, bool more, std::span<const u8> header, PacketPtr fragment, u64 now_ns) {
  u32 size = fragment->size();
  // RFC 791 §3.2: all but the last are multiples of 8; and a packet has a length field of 16 bits.
  u64 counted = u64{offset} + size + (key.source.is_v4() ? header.size() : 0);
  if (size == 0 || (more && size % 8 != 0) || counted > 65535 || header.size() > kHeaderMax) return nullptr;
  Whole* whole = find(key);
  if (whole == nullptr) whole = create(key, now_ns);
  if (whole == nullptr || whole->poisoned) return nullptr;
  bool beyond = whole->total != 0 && (offset + size > whole->total || (!more && offset + size != whole->total));
  Part* last = whole->parts.back();
  bool behind = !more && last != nullptr && last->end() > offset + size;
  if (beyond || behind || !insert(*whole, offset, std::move(fragment))) {
    while (Part* part = whole->parts.pop_front()) delete part;
    memory_ -= whole->cost - kWholeCost;
    whole->cost = kWholeCost;
    whole->poisoned = true;
    ++failed_;
    return nullptr;
  }
  if (!more) whole->total = offset + size;
  if (offset == 0) {
    memcpy(whole->header, header.data(), header.size());
    whole->header_size = static_cast<u8>(header.size());
  }
  if (whole->total != 0 && whole->received == whole->total) {
    PacketPtr result = join(*whole);
    remove(*whole);
    return result;
  }
  while (memory_ > limit_ && !wholes_.empty()) {
    ++failed_;
    remove(*wholes_.front());
  }
  return nullptr;
}

// False: it overlaps another one, or there is no memory. An exact copy is ignored (RFC 8200 §4.5 allows it): links duplicate packets.
bool Reassembly::insert(Whole& whole, u32 offset, PacketPtr fragment) {
  u32 end = offset + fragment->size();
  Part* next = nullptr;
  for (Part& part : whole.parts) {
    if (part.end() <= offset) continue;
    if (part.offset == offset && part.end() == end) return true;
    if (part.offset < end) return false;
    next = &part;
    break;
  }
  auto* part = new (std::nothrow) Part();
  if (part == nullptr) return false;
  u32 cost = fragment->cost() + static_cast<u32>(sizeof(Part));
  part->offset = offset;
  part->data = std::move(fragment);
  if (next != nullptr) {
    whole.parts.insert_before(next, part);
  } else {
    whole.parts.push_back(part);
  }
  whole.received += end - offset;
  whole.cost += cost;
  memory_ += cost;
  return true;
}

PacketPtr Reassembly::join(Whole& whole) {
  u32 at = whole.header_size, room = packet::Buffer::kPageRoom;
  auto made = Packet::create();
  if (!made.ok()) return nullptr;
  PacketPtr result = made.release();
  // Pages: runs of frames may not be there, and these always fit into a packet's slices.
  static_assert((65535 + Packet::kHeaderRoom) / packet::Buffer::kPageRoom + 1 < Packet::kSlicesMax);
  packet::Slice slice;
  auto fill = [&](const Packet& from) {
    for (u32 done = 0; done < from.size();) {
      if (!slice.buffer || slice.offset + slice.size == room) {
        if (slice.buffer && !result->append(std::move(slice)).ok()) return false;
        auto buffer = packet::Buffer::create(room);
        if (!buffer.ok()) return false;
        u32 head = result->slices().empty() ? Packet::kHeaderRoom : 0;
        slice = {buffer.release(), head, 0};
        if (head != 0) memcpy(slice.data(), whole.header, at), slice.size = at;
      }
      u32 step = std::min(from.size() - done, room - slice.offset - slice.size);
      from.copy_out(done, slice.data() + slice.size, step);
      slice.size += step;
      done += step;
    }
    return true;
  };
  for (Part& part : whole.parts) {
    if (!fill(*part.data)) return nullptr;
  }
  if (!slice.buffer || !result->append(std::move(slice)).ok()) return nullptr;
  return result;
}

u64 Reassembly::next_deadline_ns() const {
  auto& wholes = const_cast<List<Whole>&>(wholes_);
  return wholes.empty() ? ~u64{0} : wholes.front()->deadline_ns;
}

bool Reassembly::expire(u64 now_ns, Overdue* out) {
  Whole* oldest = wholes_.front();
  if (oldest == nullptr || oldest->deadline_ns > now_ns) return false;
  out->interface = oldest->key.interface;
  Part* first = oldest->parts.front();
  if (first != nullptr && first->offset == 0 && oldest->header_size != 0) {
    auto room = first->data->push_front(oldest->header_size);
    if (room.ok()) {
      memcpy(*room, oldest->header, oldest->header_size);
      out->first = std::move(first->data);
    }
  }
  ++failed_;
  remove(*oldest);
  return true;
}

}  // namespace husk::net
