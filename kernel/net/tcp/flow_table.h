// Connections by their two ends: a chained hash table that grows; holds full connections, half-open requests and those in TIME_WAIT.
#pragma once

#include "base/vec.h"
#include "kernel/net/tcp/siphash.h"

namespace husk::net::tcp {

struct FlowEntry {
  enum class Kind : u8 { connection, request, time_wait };
  explicit FlowEntry(Kind entry_kind) : kind(entry_kind) {}
  Flow flow;
  FlowEntry* next = nullptr;
  u32 hash = 0;
  const Kind kind;
  bool in_table = false;
};

class FlowTable {
 public:
  explicit FlowTable(const FlowHash& hash) : hash_(hash) {}
  ~FlowTable() { HUSK_ASSERT(count_ == 0); }
  Result<void> init() { return buckets_.resize(64); }

  u32 hash_of(const Flow& flow) const { return hash_.of(flow); }
  FlowEntry* find(const Flow& flow) const {
    u32 hash = hash_.of(flow);
    for (FlowEntry* entry = buckets_[hash & (buckets_.size() - 1)]; entry != nullptr; entry = entry->next)
      if (entry->hash == hash && matches(entry->flow, flow)) return entry;
    return nullptr;
  }
  void insert(FlowEntry& entry);  // never fails: without memory to grow, chains get longer
  void remove(FlowEntry& entry);
  size_t size() const { return count_; }
  template <typename Function>
  void for_each(Function&& function) const {
    for (FlowEntry* entry : buckets_)
      for (FlowEntry* after; entry != nullptr; entry = after) after = entry->next, function(*entry);
  }

 private:
  // An interface tells flows apart only where both sides name one (link-local scopes, SO_BINDTODEVICE).
  static bool matches(const Flow& a, const Flow& b) { return same_end(a.local, b.local) && same_end(a.remote, b.remote); }
  static bool same_end(const Endpoint& a, const Endpoint& b) {
    return a.port == b.port && a.address == b.address && (a.interface == b.interface || a.interface == 0 || b.interface == 0);
  }
  void grow();
  const FlowHash& hash_;
  Vec<FlowEntry*> buckets_;
  size_t count_ = 0;
};

}  // namespace husk::net::tcp
