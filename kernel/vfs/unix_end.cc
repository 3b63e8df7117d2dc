// Ends of AF_UNIX sockets and the packets between them: what happens to both sides when one goes.
#include "kernel/vfs/unix_end.h"

#include <new>

namespace husk::vfs {

// --- packets -------------------------------------------------------------------------------------------------------

UnixPacket* UnixPacket::create(size_t size) {
  void* memory = ::operator new(sizeof(UnixPacket) + size, std::nothrow);
  if (memory == nullptr) return nullptr;
  UnixPacket* packet = new (memory) UnixPacket;
  packet->size = size;
  return packet;
}

// A file in a packet may be the last reference to a socket with packets with files: a loop, so that programs cannot choose how deep the stack gets.
void UnixPacket::destroy(UnixPacket* packet) {
  static constinit UnixPacket* doomed = nullptr;
  static constinit bool busy = false;
  packet->next_doomed = std::exchange(doomed, packet);
  if (busy) return;
  busy = true;
  while (doomed != nullptr) {
    UnixPacket* gone = std::exchange(doomed, doomed->next_doomed);
    gone->~UnixPacket();
    ::operator delete(gone);
  }
  busy = false;
}

void UnixEnd::add(UnixPacket* packet, UnixEnd& from) {
  packet->cost = packet->size + UnixPacket::kCost;
  from.used += packet->cost;
  packet->sender = Ref<UnixEnd>::share(&from);
  packet->from = from.name;
  packets.push_back(packet);
  ++packet_count;
  queue.wake_all(kIn);
}

void UnixEnd::remove(UnixPacket& packet) {
  packet.unlink();
  const bool was_full = is_full();
  --packet_count;
  if (was_full) room.wake_all(kOut);
  UnixEnd& sender = *packet.sender;
  sender.used -= packet.cost;
  if (!sender.dead && sender.writable()) sender.queue.wake_all(kOut);
  UnixPacket::destroy(&packet);
}

// --- ends ----------------------------------------------------------------------------------------------------------

void UnixEnd::connect(const Ref<UnixEnd>& a, const Ref<UnixEnd>& b) {
  a->peer = b;
  b->peer = a;
  a->state = b->state = State::connected;
}

void UnixEnd::release(bool embryo) {
  dead = true;
  remove_bound(*this);
  const bool was_unread = embryo || !packets.empty();
  Ref<UnixEnd> other = std::move(peer);
  if (other && type != kSocketDatagram) {
    other->read_closed = other->write_closed = true;
    if (was_unread) other->error = ECONNRESET;
    other->changed();
  }
  while (UnixEnd* waiting = embryos.pop_front()) {
    Ref<UnixEnd> held = Ref<UnixEnd>::adopt(waiting);
    held->release(true);
  }
  embryo_count = 0;
  state = State::closed;
  read_closed = write_closed = true;
  while (UnixPacket* packet = packets.front()) remove(*packet);
  room.wake_all(kOut);
}

void UnixEnd::disconnect() {
  Ref<UnixEnd> old = std::move(peer);
  state = State::closed;
  if (!old || packets.empty()) return;
  while (UnixPacket* packet = packets.front()) remove(*packet);
  if (old->dead || old->peer.get() != this) return;  // its messages are lost, and it is told
  old->error = ECONNRESET;
  old->changed();
}

}  // namespace husk::vfs
