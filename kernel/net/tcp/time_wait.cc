// See time_wait.h.
#include "kernel/net/tcp/time_wait.h"

#include "kernel/net/tcp/connection.h"

namespace husk::net::tcp {

TimeWait* TimeWaits::add(const Flow& flow, const Binding& binding) {
  if (count_ >= most_ && count_ > 0) remove(*list_.front());
  auto made = make_owned<TimeWait>();
  if (!made.ok()) return nullptr;
  TimeWait& record = **made;
  record.flow = flow;
  record.bound = flow.local.address;
  record.bound_interface = binding.bound_interface;
  record.reuse_address = binding.reuse_address;
  record.reuse_port = binding.reuse_port;
  record.port_was_chosen = binding.port_was_chosen;
  if (!engine_.ports.attach(record, flow.local.port).ok()) return nullptr;
  record.expires_ns = engine_.lower.now_ns() + kTime;
  engine_.flows.insert(record);
  list_.push_back(&record);
  ++count_;
  return made->release();
}

void TimeWaits::remove(TimeWait& record) {
  engine_.flows.remove(record);
  engine_.ports.detach(record);
  record.ListNode<TimeWaitTag>::unlink();
  --count_;
  delete &record;
}

void TimeWaits::expire(u64 now_ns) {
  while (!list_.empty() && list_.front()->expires_ns <= now_ns) remove(*list_.front());
}

void TimeWaits::clear() {
  while (!list_.empty()) remove(*list_.front());
}

void TimeWaits::acknowledge(const TimeWait& record) {
  Segment ack;
  ack.seq = record.send_next;
  ack.ack = record.receive_next;
  ack.flags = kAck;
  ack.window = record.window;
  ack.has_timestamps = record.timestamps;
  ack.timestamp_value = engine_.timestamp(record.timestamp_offset);
  ack.timestamp_echo = record.timestamp_recent;
  engine_.send(record.flow, ack);
}

// RFC 6191 §2, RFC 1122 §4.2.2.13.
bool TimeWaits::may_open_again(const TimeWait& record, const Segment& syn) const {
  if (!syn.has(kSyn) || syn.has(kAck)) return false;
  if (record.timestamps && syn.has_timestamps && syn.timestamp_value != record.timestamp_recent)
    return static_cast<i32>(syn.timestamp_value - record.timestamp_recent) > 0;
  return syn.seq > record.receive_next;
}

void TimeWaits::input(TimeWait& record, const Segment& segment, packet::PacketPtr payload) {
  if (segment.has(kRst)) return;  // RFC 1337 §3, fix F1
  Connection* listener = may_open_again(record, segment) ? engine_.find_listener(record.flow) : nullptr;
  if (listener != nullptr) {
    Flow flow = record.flow;
    SeqNum end = record.send_next;
    remove(record);
    return listener->listen_input(flow, segment, std::move(payload), end);
  }
  if (segment.length() == 0 && segment.seq == record.receive_next) return;  // a late acknowledgement
  if (segment.has(kFin)) {
    record.expires_ns = engine_.lower.now_ns() + kTime;
    record.ListNode<TimeWaitTag>::unlink();
    list_.push_back(&record);
  }
  acknowledge(record);
}

}  // namespace husk::net::tcp
