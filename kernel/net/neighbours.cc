// See kernel/net/neighbours.h. Constants of RFC 4861 §10.
#include "kernel/net/neighbours.h"

#include <algorithm>

#include "kernel/net/stack_state.h"

namespace husk::net {

namespace {

constexpr u64 kRetransmit = 1 * kSecond, kReachable = 30 * kSecond, kDelayFirstProbe = 5 * kSecond;
constexpr u64 kLock = 1 * kSecond;  // a confirmed address is not replaced before: two that quarrel about it do not flap
constexpr u8 kProbes = 3;

}  // namespace

Neighbours::~Neighbours() {
  for (NeighbourEntry*& bucket : buckets_) {
    while (bucket != nullptr) remove(*bucket);
  }
  while (packet::Packet* packet = failed_.pop_front()) delete packet;
}

NeighbourEntry* Neighbours::find(const Interface& interface, const IpAddress& address) {
  for (NeighbourEntry* entry = buckets_[bucket_of(address)]; entry != nullptr; entry = entry->next) {
    if (entry->address == address && entry->interface == &interface) return entry;
  }
  return nullptr;
}

NeighbourEntry* Neighbours::find_or_create(Interface& interface, const IpAddress& address) {
  if (NeighbourEntry* entry = find(interface, address)) return entry;
  if (count_ >= limit_) evict();
  auto* entry = new (std::nothrow) NeighbourEntry();
  if (entry == nullptr) return nullptr;
  entry->interface = &interface;
  entry->address = address;
  NeighbourEntry*& bucket = buckets_[bucket_of(address)];
  entry->next = bucket;
  bucket = entry;
  ++count_;
  return entry;
}

void Neighbours::arm(NeighbourEntry& entry, u64 deadline_ns) {
  entry.deadline_ns = deadline_ns;
  next_deadline_ns_ = std::min(next_deadline_ns_, deadline_ns);
}

packet::Packet* Neighbours::take(NeighbourEntry& entry) {
  packet::Packet* packet = entry.queue.pop_front();
  if (packet == nullptr) return nullptr;
  u64 cost = packet->cost();
  entry.queued -= cost;
  waiting_ -= cost;
  return packet;
}

void Neighbours::send(NeighbourEntry& entry, packet::PacketPtr packet) {
  u64 now = stack_.coarse_now_ns();
  entry.used_ns = now;
  if (entry.state == NeighbourState::incomplete) {
    u64 cost = packet->cost();
    while (entry.queued != 0 && entry.queued + cost > NeighbourEntry::kQueueMax) {  // the oldest goes (RFC 4861 §7.2.2)
      delete take(entry);
      ++stack_.count().out_discards;
    }
    if (waiting_ + cost <= kWaitingMax) {
      entry.queue.push_back(packet.release());
      entry.queued += cost;
      waiting_ += cost;
    } else {
      ++stack_.count().out_discards;
    }
    if (entry.probes > 0) return;
    entry.probes = 1;
    arm(entry, now + kRetransmit);
    return stack_.solicit(entry, nullptr);
  }
  if (entry.state == NeighbourState::reachable && now >= entry.deadline_ns) entry.state = NeighbourState::stale;
  if (entry.state == NeighbourState::stale) {
    entry.state = NeighbourState::delay;
    arm(entry, now + kDelayFirstProbe);
  }
  stack_.send_frame(*entry.interface, entry.mac, std::move(packet));
}

void Neighbours::resolved(NeighbourEntry& entry, const u8* mac, Solicited solicited) {
  u64 now = stack_.now_ns();
  bool other = memcmp(entry.mac, mac, 6) != 0;
  if (other && entry.state == NeighbourState::reachable && now < entry.changed_ns + kLock) return;
  bool waited = entry.state == NeighbourState::incomplete;
  if (solicited == Solicited::yes) {
    entry.state = NeighbourState::reachable;
    entry.deadline_ns = now + kReachable;
  } else if (other || waited) {
    entry.state = NeighbourState::stale;
    entry.deadline_ns = ~u64{0};
  }
  if (waited) stack_.mark_gateway(entry, 0);
  if (other || solicited == Solicited::yes) entry.changed_ns = now;
  entry.probes = 0;
  memcpy(entry.mac, mac, 6);
  while (packet::Packet* packet = take(entry)) send(entry, packet::PacketPtr(packet));
}

void Neighbours::run(u64 now_ns) {
  if (now_ns < next_deadline_ns_) return;
  next_deadline_ns_ = ~u64{0};
  for (NeighbourEntry*& bucket : buckets_) {
    for (NeighbourEntry *entry = bucket, *next; entry != nullptr; entry = next) {
      next = entry->next;
      if (entry->state == NeighbourState::reachable || entry->state == NeighbourState::stale) continue;
      if (entry->deadline_ns > now_ns) {
        next_deadline_ns_ = std::min(next_deadline_ns_, entry->deadline_ns);
      } else {
        due(*entry, now_ns);
      }
    }
  }
  while (packet::Packet* packet = failed_.pop_front()) stack_.undeliverable(*packet::PacketPtr(packet));
}

void Neighbours::due(NeighbourEntry& entry, u64 now_ns) {
  if (entry.state == NeighbourState::delay) {
    entry.state = NeighbourState::probe;
    entry.probes = 0;
  }
  if (entry.probes >= kProbes) return fail(entry);
  ++entry.probes;
  arm(entry, now_ns + kRetransmit);
  stack_.solicit(entry, entry.state == NeighbourState::probe ? entry.mac : nullptr);
}

// RFC 1122 §2.3.2.1, RFC 4861 §7.2.2: who has waited for it hears that the host is not reachable. Other gateways are preferred to it.
void Neighbours::fail(NeighbourEntry& entry) {
  stack_.mark_gateway(entry, stack_.coarse_now_ns());
  if (packet::Packet* first = take(entry)) failed_.push_back(first);
  remove(entry);
}

void Neighbours::evict() {
  NeighbourEntry* oldest = nullptr;
  for (NeighbourEntry* bucket : buckets_) {
    for (NeighbourEntry* entry = bucket; entry != nullptr; entry = entry->next) {
      if (oldest == nullptr || entry->used_ns < oldest->used_ns) oldest = entry;
    }
  }
  if (oldest != nullptr) remove(*oldest);
}

void Neighbours::remove(NeighbourEntry& entry) {
  stack_.forget_destinations();
  NeighbourEntry** link = &buckets_[bucket_of(entry.address)];
  while (*link != &entry) link = &(*link)->next;
  *link = entry.next;
  --count_;
  while (packet::Packet* packet = take(entry)) delete packet;
  delete &entry;
}

void Neighbours::forget(const Interface& interface, const IpAddress& address) {
  if (NeighbourEntry* entry = find(interface, address)) remove(*entry);
}

size_t Neighbours::list(std::span<Neighbour> out) const {
  size_t count = 0;
  for (const NeighbourEntry* bucket : buckets_) {
    for (const NeighbourEntry* entry = bucket; entry != nullptr; entry = entry->next) {
      if (entry->state == NeighbourState::incomplete) continue;
      if (count < out.size()) {
        Neighbour& one = out[count] = {entry->address, {}, entry->interface->index, entry->state != NeighbourState::stale};
        memcpy(one.mac, entry->mac, 6);
      }
      ++count;
    }
  }
  return count;
}

}  // namespace husk::net
