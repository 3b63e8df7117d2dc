// The one object of class Tcp: tables, limits, timers and the list of connections that have something to do.
//
// input() changes state and queues; run() decides what is sent. A connection that ended is let go at the end of input() or run(), never in
// the middle of its own functions.
#pragma once

#include <algorithm>

#include "base/list.h"
#include "kernel/net/tcp/flow_table.h"
#include "kernel/net/tcp/memory.h"
#include "kernel/net/tcp/ports.h"
#include "kernel/net/tcp/secrets.h"
#include "kernel/net/tcp/tcp.h"
#include "kernel/net/tcp/time_wait.h"
#include "kernel/net/tcp/timer_heap.h"

namespace husk::net::tcp {

class Connection;
struct ReadyTag;

// So many a second, and as many at once.
class RateLimit {
 public:
  explicit RateLimit(u32 per_second) : per_second_(per_second), tokens_(per_second) {}
  bool allows(u64 now_ns) {
    if (now_ns - since_ns_ >= 1'000'000'000) since_ns_ = now_ns, tokens_ = per_second_;
    return tokens_ > 0 && tokens_-- > 0;
  }

 private:
  const u32 per_second_;
  u32 tokens_;
  u64 since_ns_ = 0;
};

class Engine final : public Tcp {
 public:
  Engine(Lower& below, const Limits& bounds);
  ~Engine() override;
  Result<void> init();

  Result<Ref<Socket>> socket(Family family) override;
  void input(const Flow& flow, const Segment& segment, PacketPtr payload, u32 pieces) override;
  void network_error(const Flow& flow, SeqNum sequence, int error, u16 mtu) override;
  void run() override;
  u64 next_deadline_ns() const override { return ready.empty() ? std::min(timers.next_ns(), time_waits.next_ns()) : 0; }
  Statistics statistics() const override;
  void visit(Visitor& visitor) const override;

  Connection* find_listener(const Flow& flow) const;  // null: nobody listens there
  // RFC 9293 §3.10.7.1 and .2: to a listener, or answered with RST.
  void input_without_connection(const Flow& flow, const Segment& segment, PacketPtr payload);
  void send(const Flow& flow, const Segment& segment) { send(flow, segment, nullptr, 0, 0, 0); }
  void send(const Flow& flow, const Segment& segment, PacketPtr payload, u16 segment_size, u8 traffic_class, u8 hop_limit);
  void send_reset_for(const Flow& flow, const Segment& offending);  // RFC 9293 §3.5.2 group 1
  u32 timestamp(u32 offset) { return offset + static_cast<u32>(lower.now_ns() / 1'000'000); }
  // The table's reference to this connection ends.
  void let_go(Connection& connection);

  Lower& lower;
  const Limits limits;
  Statistics counters = {};
  Memory memory;
  Secrets secrets;
  FlowTable flows;
  Ports ports;
  TimerHeap timers;
  TimeWaits time_waits;
  List<Connection, ReadyTag> ready;  // something to send, to acknowledge or to tell
  bool starved = false;              // somebody could not write because memory was used up
  u64 cookies_sent_ns = 0;

 private:
  void wake_starved();
  void reap();
  List<Connection, ReadyTag> ended_;
  RateLimit resets_{1000};
};

}  // namespace husk::net::tcp
