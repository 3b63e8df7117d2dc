// See ports.h.
#include "kernel/net/tcp/ports.h"

#include <algorithm>

namespace husk::net::tcp {

PortBucket* Ports::find(u16 port) const {
  PortBucket* bucket = buckets_[port & (buckets_.size() - 1)];
  while (bucket != nullptr && bucket->port != port) bucket = bucket->next;
  return bucket;
}

Result<void> Ports::attach(Binding& binding, u16 port) {
  PortBucket* bucket = find(port);
  if (bucket == nullptr) {
    bucket = TRY(make_owned<PortBucket>()).release();
    bucket->port = port;
    Vec<PortBucket*> bigger;
    if (count_ >= buckets_.size() && bigger.resize(buckets_.size() * 2).ok()) {
      for (PortBucket* old : buckets_)
        for (PortBucket* after; old != nullptr; old = after) {
          after = old->next;
          PortBucket*& head = bigger[old->port & (bigger.size() - 1)];
          old->next = head, head = old;
        }
      buckets_ = std::move(bigger);
    }
    PortBucket*& head = buckets_[port & (buckets_.size() - 1)];
    bucket->next = head;
    head = bucket;
    ++count_;
  }
  binding.bucket = bucket;
  bucket->others.push_back(&binding);
  return {};
}

void Ports::detach(Binding& binding) {
  PortBucket* bucket = std::exchange(binding.bucket, nullptr);
  if (bucket == nullptr) return;
  binding.unlink();
  binding.listening = false;
  if (!bucket->listeners.empty() || !bucket->others.empty()) return;
  PortBucket** link = &buckets_[bucket->port & (buckets_.size() - 1)];
  while (*link != bucket) link = &(*link)->next;
  *link = bucket->next;
  --count_;
  delete bucket;
}

void Ports::set_listening(Binding& binding, bool listening) {
  binding.unlink();
  binding.listening = listening;
  (listening ? binding.bucket->listeners : binding.bucket->others).push_back(&binding);
}

bool Ports::covers(const Binding& binding, const IpAddress& address) {
  if (binding.bound == address) return true;
  if (binding.bound == IpAddress{}) return !(binding.v6_only && address.is_v4());
  return binding.bound.is_any() && address.is_v4();
}

bool Ports::conflicts(const Binding& a, const Binding& b) {
  if (a.bound_interface != 0 && b.bound_interface != 0 && a.bound_interface != b.bound_interface) return false;
  if (!covers(a, b.bound) && !covers(b, a.bound)) return false;
  if (a.reuse_port && b.reuse_port) return false;
  return !(a.reuse_address && b.reuse_address && !a.listening && !b.listening);
}

bool Ports::is_free(u16 port, const Binding& binding) const {
  PortBucket* bucket = find(port);
  if (bucket == nullptr) return true;
  auto conflicts_here = [&](Binding& other) { return &other != &binding && conflicts(binding, other); };
  for (BindingList* list : {&bucket->listeners, &bucket->others})
    for (Binding& other : *list)
      if (conflicts_here(other)) return false;
  return true;
}

u16 Ports::choose(const Binding& binding, u32 start) const {
  u32 range = last_ - first_ + 1u;
  // First a port that nobody has: sharing one is for those who ask for it by number.
  for (u32 i = 0; i < range; ++i) {
    u16 port = static_cast<u16>(first_ + (start + i) % range);
    if (find(port) == nullptr) return port;
  }
  for (u32 i = 0; i < range; ++i) {
    u16 port = static_cast<u16>(first_ + (start + i) % range);
    if (is_free(port, binding)) return port;
  }
  return 0;
}

}  // namespace husk::net::tcp
