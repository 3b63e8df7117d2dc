// A connection that is half open on the passive side (SYN-RECEIVED from LISTEN): small, because strangers make them.
#pragma once

#include <optional>

#include "kernel/net/tcp/flow_table.h"
#include "kernel/net/tcp/tcp.h"
#include "kernel/net/tcp/timer_heap.h"

namespace husk::net::tcp {

class Engine;
class Connection;

// What two SYNs have agreed upon.
struct Handshake {
  SeqNum iss, irs;
  u16 peer_mss = 536, own_mss = 536, mtu = 1500;
  u32 segmentation_max = 0;
  i8 peer_scale = -1;
  u8 own_scale = 0;
  bool sack = false, timestamps = false;
  u16 own_window = 0;
  u32 timestamp_recent = 0, timestamp_offset = 0;
  u64 sent_ns = 0;  // when the SYN-ACK went; 0: it was sent more than once, or nobody remembers
  u8 timeouts = 0;  // after which it was sent again
};

class Request final : public FlowEntry, public Timer, public ListNode<> {
 public:
  Request(Engine& engine, Connection& listener) : FlowEntry(Kind::request), engine_(engine), listener_(listener) {}
  // `after`: where the same flow's connection ended that is in TIME_WAIT.
  static Result<Request*> create(Engine& engine, Connection& listener, const Flow& flow, const Segment& syn, std::optional<SeqNum> after);
  ~Request();
  void input(const Segment& segment, PacketPtr payload, u32 pieces);  // may end the request
  void on_timer(u64 now_ns) override;
  bool concerns(SeqNum sequence) const { return sequence == handshake_.iss; }

 private:
  static constexpr u8 kRetransmitsMax = 5;  // tcp_synack_retries
  bool acceptable(const Segment& segment) const;
  void send_syn_ack();
  void acknowledge();
  Engine& engine_;
  Connection& listener_;
  Handshake handshake_;
  u64 created_ns_ = 0;
};

// Fills in what a SYN and the route to its sender say; sequence numbers are the caller's.
Result<Handshake> make_handshake(Engine& engine, const Connection& listener, const Flow& flow, const Segment& syn);
Segment make_syn_ack(Engine& engine, const Handshake& handshake);

}  // namespace husk::net::tcp
