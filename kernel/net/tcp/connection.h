// One connection or listener: its state (RFC 9293 §3.3.1) and what works on it, a file for each concept.
//
//   socket.cc       bind, listen, accept, connect, shutdown, close, options     stream.cc    send, receive
//   connect.cc      from SYN to ESTABLISHED                                     input.cc     the steps of RFC 9293 §3.10.7.4
//   ack_input.cc    what an acknowledgement changes                             recovery.cc  loss: what to send again
//   output.cc       what may be sent, and segments                              timeouts.cc  timers
//   listener.cc     SYN, cookies, the accept queue                              events.cc    poll events, information
//
// input() marks a connection as ready; run() then sends data and only after it decides about acknowledgements, so that a reply carries them.
#pragma once

#include "kernel/net/tcp/congestion.h"
#include "kernel/net/tcp/engine.h"
#include "kernel/net/tcp/receive_queue.h"
#include "kernel/net/tcp/request.h"
#include "kernel/net/tcp/round_trip.h"
#include "kernel/net/tcp/scoreboard.h"
#include "kernel/net/tcp/send_queue.h"

namespace husk::net::tcp {

struct AcceptTag;

struct Listener {
  u32 backlog = 0, waiting = 0, half_open = 0;
  List<Connection, AcceptTag> accept_queue;  // holds a reference to each
  List<Request> requests;
};

struct SendState {
  SeqNum una, nxt, iss, wl1, wl2;
  SeqNum small_end;  // end of the last segment that was not full (Minshall's form of Nagle)
  u32 window = 0, max_window = 0;
  u16 peer_mss = 536, mss = 536;  // mss: payload of a full segment, options taken off
  u8 scale = 0;
};

struct ReceiveState {
  SeqNum nxt, irs, edge, last_ack_sent, fin;  // edge: the window's right end, never moved back
  u32 timestamp_recent = 0;
  u32 limit = 64 * kKiB;       // of unread bytes; grows
  u32 copied = 0;              // by the program since copied_since_ns
  u32 segment_estimate = 536;  // payload of the peer's full segments
  u64 timestamp_recent_ns = 0, copied_since_ns = 0;
  u16 mss = 536;  // that we announced
  u8 scale = 0;
  bool has_fin = false;  // `fin` is the FIN's sequence number; it may be ahead of nxt
};

struct Deadlines {
  u64 retransmit = kNever;  // or persist, or SYN
  u64 acknowledge = kNever;
  u64 keep = kNever;  // keep-alive; FIN_WAIT_2 without owner
  u64 cork = kNever;
  u64 first() const { return std::min(std::min(retransmit, acknowledge), std::min(keep, cork)); }
};

enum class Mode : u8 {
  open,
  recovery,  // fast recovery (RFC 6675 §5, RFC 6582)
  loss,      // after a timeout: everything up to `point` is taken for lost
};

class Connection final : public Socket, public FlowEntry, public Binding, public Timer, public ListNode<ReadyTag>, public ListNode<AcceptTag> {
 public:
  Connection(Engine& engine, Family family);
  ~Connection() override;
  static Result<Ref<Connection>> create(Engine& engine, Family family);

  // --- Socket ------------------------------------------------------------------
  void set_observer(SocketObserver* observer) override { observer_ = observer; }
  Result<void> bind(const Endpoint& local) override;
  Result<void> listen(u32 backlog) override;
  Result<Ref<Socket>> accept() override;
  Result<void> connect(const Endpoint& remote) override;
  Result<size_t> send(vfs::IoBuffer& from, More more) override;
  Result<size_t> receive(vfs::IoBuffer& to, Peek peek) override;
  Result<size_t> discard(size_t bytes) override;
  Result<void> shutdown(int how) override;
  void close() override;
  u32 events() override;
  int take_error() override { return std::exchange(error_, 0); }
  State state() const override { return state_; }
  bool sending_done() const override;
  Endpoint local() const override { return flow.local; }
  Endpoint remote() const override { return flow.remote; }
  size_t readable_bytes() const override { return state_ == State::listen ? 0 : received_.size(); }
  size_t unsent_bytes() const override;
  const Options& options() const override { return options_; }
  void set_options(const Options& options) override;
  Information information() const override;

  // --- for the engine ------------------------------------------------------------
  void input(const Segment& segment, PacketPtr payload, u32 pieces);
  // `after`: see Request::create().
  void listen_input(const Flow& from, const Segment& segment, PacketPtr payload, std::optional<SeqNum> after);
  void run(u64 now_ns);
  void on_timer(u64 now_ns) override;
  void network_error(SeqNum sequence, int error, u16 mtu);
  void wake_if_starved();
  void abort_silently();  // the stack ends

  // --- for requests --------------------------------------------------------------
  // A passive connection is complete: makes it and hands it the segment. False: no room, the segment is to be dropped.
  bool establish(const Flow& with, const Handshake& handshake, const Segment& segment, PacketPtr payload, u32 pieces);
  bool accept_queue_full() const { return listener_->waiting > listener_->backlog; }
  Listener* listener() { return listener_.get(); }

 private:
  // socket.cc
  Result<void> choose_port();
  Result<void> prepare_flow(const Endpoint& remote);
  void stop_listening();
  void become_closed(int error);
  void reset_peer();  // RST, and closed
  void take_binding_options();
  void queue_fin();
  // connect.cc
  void start_syn_sent(const Lower::Route& route, u64 now_ns);
  void apply_route(const Lower::Route& route);
  void send_syn(u64 now_ns);
  void input_syn_sent(const Segment& segment, PacketPtr payload);
  void take_peer_options(const Segment& syn);
  void become_established(const Segment& segment, u64 now_ns);
  void update_mss();
  u8 scale_for_buffer() const;
  void start_windows();
  // input.cc
  struct Incoming;
  bool input_predicted(const Segment& segment, PacketPtr& payload, u32 pieces, u64 now_ns);
  bool check_sequence(Incoming& in);
  bool check_timestamps(Incoming& in);
  void trim_to_window(Incoming& in);
  bool check_reset(const Incoming& in);
  bool check_syn(const Incoming& in);
  void process_text(Incoming& in);
  bool has_memory_for(const packet::Packet& payload, bool in_order) const;
  bool take_beginning(Incoming& in);
  void receive_in_order(PacketPtr payload, u32 pieces);
  bool receive_out_of_order(SeqNum first, PacketPtr payload);
  void process_fin();
  void challenge(u64 now_ns);
  void note_timestamp(const Segment& segment, u64 now_ns);
  void enter_time_wait();
  // ack_input.cc
  bool process_ack(const Segment& segment, u64 now_ns);
  bool check_ack_in_syn_received(const Segment& segment, u64 now_ns);
  void update_send_window(const Segment& segment);
  u32 take_sack(const Segment& segment);
  void acknowledged(const Segment& segment, u64 now_ns);
  void measure(const Segment& segment, u64 now_ns);
  void maybe_duplicate(const Segment& segment, bool window_changed, u32 newly_sacked, u64 now_ns);
  void fin_acknowledged();
  // recovery.cc
  void enter_recovery(u64 now_ns);
  void advance_recovery(u32 bytes, u32 flight_before, u64 now_ns);
  u32 pipe() const;
  SeqNum lost_end() const;
  SackBlock next_retransmission() const;
  bool send_retransmissions(u64 now_ns);
  bool sack_says() const { return sack_ && scoreboard_ != nullptr && !scoreboard_->empty(); }
  // output.cc
  void send_new_data(u64 now_ns);
  u32 sendable(u32 available, u32 room) const;
  bool may_send_partial(u32 size) const;
  void restart_after_idle(u64 now_ns);
  bool transmit(SeqNum from, u32 size, u64 now_ns);
  void emit(u8 flags, SeqNum sequence, PacketPtr payload, u16 segment_size);
  void send_ack() { emit(kAck, send_.nxt, nullptr, 0); }
  void acknowledge(u64 now_ns);
  u16 window_to_announce();
  u32 receive_room() const;
  SeqNum send_end() const { return queue_.end() + (fin_queued_ ? 1 : 0); }
  // timeouts.cc
  void retransmit_timeout(u64 now_ns);
  void syn_timeout(u64 now_ns);
  void persist_timeout(u64 now_ns);
  void keep_timeout(u64 now_ns);
  void find_black_hole();
  bool gives_up(u64 now_ns) const;
  void arm_keep(u64 now_ns);
  void schedule();
  bool set_mtu(u16 mtu);
  // events.cc
  void mark_ready();
  void notify_now();
  bool writable() const;
  u32 send_buffer() const;
  void check_writable();
  // stream.cc
  void consumed(size_t bytes);
  void grow_receive_buffer(size_t bytes, u64 now_ns);
  Result<void> check_writer();
  // listener.cc
  void receive_syn(const Flow& from, const Segment& syn, std::optional<SeqNum> after);
  bool receive_cookie(const Flow& from, const Segment& ack, PacketPtr& payload);
  void adopt(const Flow& with, const Handshake& handshake, const Segment& segment, const Connection& parent);

  bool synchronised() const { return state_ >= State::established; }

  Engine& engine_;
  SocketObserver* observer_ = nullptr;
  Owned<Listener> listener_;
  Options options_;
  const Family family_;
  State state_ = State::closed;
  Mode mode_ = Mode::open;
  u8 shutdown_ = 0;  // 1: reading, 2: writing
  u8 retransmits_ = 0, probes_ = 0, quick_acks_left_ = 16;
  bool anchored_ : 1 = false;    // the table holds a reference
  bool orphan_ : 1 = false;      // the owner has closed it
  bool connecting_ : 1 = false;  // connect() has not told the result yet
  bool fin_queued_ : 1 = false;
  bool sack_ : 1 = false, timestamps_ : 1 = false;
  bool ack_pending_ : 1 = false, ack_now_ : 1 = false;
  bool interactive_ : 1 = false;  // replies follow requests: acknowledgements wait for them
  bool notify_ : 1 = false, was_full_ : 1 = false, starved_ : 1 = false;
  bool more_ : 1 = false, push_partial_ : 1 = false;
  bool force_retransmit_ : 1 = false;  // one segment, whatever the window says
  bool timing_ : 1 = false;            // timed_ is being measured
  bool retransmitted_ : 1 = false;     // since something new was acknowledged
  bool passive_ : 1 = false;
  bool eifel_armed_ : 1 = false;  // a timeout may turn out to be spurious
  int error_ = 0, soft_error_ = 0;

  SendState send_;
  ReceiveState receive_;
  RoundTrip round_trip_;
  Window window_;
  Deadlines deadlines_;
  SeqNum point_, retransmit_next_, timed_;  // recovery point; HighRxt + 1; end of the measured segment
  u32 duplicate_acks_ = 0;
  u16 mtu_ = 1500;
  u32 segmentation_max_ = 0, timestamp_offset_ = 0;
  u32 undo_congestion_ = 0, undo_threshold_ = 0, undo_timestamp_ = 0;
  SackBlock duplicate_ = {};  // to report once (RFC 2883)
  u64 timed_ns_ = 0, last_received_ns_ = 0, last_sent_ns_ = 0, challenge_ns_ = 0, unanswered_since_ns_ = 0;
  u64 bytes_received_ = 0, bytes_acknowledged_ = 0, segments_in_ = 0, segments_out_ = 0;
  u32 total_retransmits_ = 0;
  SendQueue queue_;
  PacketChain received_;
  Owned<Reassembly> reassembly_;
  Owned<Scoreboard> scoreboard_;

  friend class Request;
  friend Result<Handshake> make_handshake(Engine&, const Connection&, const Flow&, const Segment&);
};

}  // namespace husk::net::tcp
