// TIME_WAIT as a small record instead of a connection (RFC 9293 §3.10.7.4 eighth step, RFC 1337, RFC 6191).
#pragma once

#include "kernel/net/tcp/flow_table.h"
#include "kernel/net/tcp/ports.h"

namespace husk::net::tcp {

class Engine;
struct TimeWaitTag;

struct TimeWait final : FlowEntry, Binding, ListNode<TimeWaitTag> {
  TimeWait() : FlowEntry(Kind::time_wait) {}
  SeqNum send_next, receive_next;
  u16 window = 0;
  bool timestamps = false;
  u32 timestamp_recent = 0, timestamp_offset = 0;
  u64 expires_ns = 0;
};

// All of them, the oldest first: every one waits equally long, so that the list is in order of expiry.
class TimeWaits {
 public:
  // 2 MSL. DEVIATES: RFC 9293 §3.4.2 has an MSL of 2 minutes; 60 s in all, as on Linux.
  static constexpr u64 kTime = 60'000'000'000;
  TimeWaits(Engine& engine, u32 most) : engine_(engine), most_(most) {}
  ~TimeWaits() { clear(); }
  // Enters a flow; when there are too many, the oldest goes. The caller fills in what it holds.
  TimeWait* add(const Flow& flow, const Binding& binding);
  void input(TimeWait& record, const Segment& segment, packet::PacketPtr payload);
  void expire(u64 now_ns);
  u64 next_ns() const { return list_.empty() ? ~u64{0} : const_cast<TimeWaits*>(this)->list_.front()->expires_ns; }
  u32 count() const { return count_; }
  void clear();

 private:
  void remove(TimeWait& record);
  void acknowledge(const TimeWait& record);
  bool may_open_again(const TimeWait& record, const Segment& syn) const;
  Engine& engine_;
  List<TimeWait, TimeWaitTag> list_;
  u32 count_ = 0;
  const u32 most_;
};

}  // namespace husk::net::tcp
