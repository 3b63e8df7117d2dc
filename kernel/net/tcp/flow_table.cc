// See flow_table.h.
#include "kernel/net/tcp/flow_table.h"

namespace husk::net::tcp {

void FlowTable::insert(FlowEntry& entry) {
  HUSK_ASSERT(!entry.in_table);
  if (count_ == buckets_.size()) grow();
  entry.hash = hash_.of(entry.flow);
  FlowEntry*& head = buckets_[entry.hash & (buckets_.size() - 1)];
  entry.next = head;
  head = &entry;
  entry.in_table = true;
  ++count_;
}

void FlowTable::remove(FlowEntry& entry) {
  if (!entry.in_table) return;
  FlowEntry** link = &buckets_[entry.hash & (buckets_.size() - 1)];
  while (*link != &entry) link = &(*link)->next;
  *link = entry.next;
  entry.in_table = false;
  --count_;
}

void FlowTable::grow() {
  Vec<FlowEntry*> bigger;
  if (!bigger.resize(buckets_.size() * 2).ok()) return;
  for_each([&](FlowEntry& entry) {
    FlowEntry*& head = bigger[entry.hash & (bigger.size() - 1)];
    entry.next = head;
    head = &entry;
  });
  buckets_ = std::move(bigger);
}

}  // namespace husk::net::tcp
