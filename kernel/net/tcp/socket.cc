// The calls of a socket that open and close: bind, listen, accept, connect, shutdown, close; options.
#include "kernel/net/tcp/connection.h"

namespace husk::net::tcp {

Connection::Connection(Engine& engine, Family family)
    : FlowEntry(Kind::connection), engine_(engine), family_(family), queue_(engine.memory), received_(engine.memory) {
  if (family == Family::v4) flow.local.address = flow.remote.address = IpAddress::v4(0, 0, 0, 0);
  ++engine_.counters.sockets;
}

Connection::~Connection() {
  HUSK_ASSERT(!in_table && !anchored_);
  listener_.reset();
  ListNode<ReadyTag>::unlink();
  engine_.timers.cancel(*this);
  engine_.timers.remove_place();
  engine_.ports.detach(*this);
  --engine_.counters.sockets;
}

Result<Ref<Connection>> Connection::create(Engine& engine, Family family) {
  TRY(engine.timers.add_place());
  auto made = make_ref<Connection>(engine, family);
  if (!made.ok()) engine.timers.remove_place();
  return made;
}

void Connection::take_binding_options() {
  reuse_address = options_.reuse_address;
  reuse_port = options_.reuse_port;
  v6_only = options_.v6_only;
}

Result<void> Connection::bind(const Endpoint& local) {
  if (state_ != State::closed || bucket != nullptr) return Error(EINVAL);
  Endpoint wanted = local;
  if (family_ == Family::v4 && wanted.address.is_any()) wanted.address = IpAddress::v4(0, 0, 0, 0);
  if (wanted.address.is_v4() ? family_ == Family::v6 && options_.v6_only : family_ == Family::v4) return Error(EINVAL);
  if (!wanted.address.is_any() && !engine_.lower.is_local(wanted.address)) return Error(EADDRNOTAVAIL);
  take_binding_options();
  bound = wanted.address;
  bound_interface = wanted.interface;
  flow.local = wanted;
  if (wanted.port == 0) return choose_port();
  if (!engine_.ports.is_free(wanted.port, *this)) return Error(EADDRINUSE);
  return engine_.ports.attach(*this, wanted.port);
}

Result<void> Connection::choose_port() {
  u32 start;
  engine_.lower.random(&start, sizeof(start));
  u16 port = engine_.ports.choose(*this, start);
  if (port == 0) return Error(EADDRINUSE);
  TRY(engine_.ports.attach(*this, port));
  flow.local.port = port;
  return {};
}

Result<void> Connection::listen(u32 backlog) {
  if (state_ != State::closed && state_ != State::listen) return Error(EINVAL);
  if (state_ == State::listen) {
    listener_->backlog = backlog;
    return {};
  }
  take_binding_options();
  if (bucket == nullptr) {
    bound = flow.local.address;
    TRY(choose_port());
  }
  auto made = TRY(make_owned<Listener>());
  if (!engine_.ports.is_free(bucket->port, *this)) return Error(EADDRINUSE);
  engine_.ports.set_listening(*this, true);
  listener_ = std::move(made);
  listener_->backlog = backlog;
  state_ = State::listen;
  shutdown_ = 0;
  error_ = 0;
  return {};
}

Result<Ref<Socket>> Connection::accept() {
  if (state_ != State::listen) return Error(EINVAL);
  Connection* child = listener_->accept_queue.pop_front();
  if (child == nullptr) return Error(EAGAIN);
  --listener_->waiting;
  return Ref<Socket>::adopt(child);
}

Result<void> Connection::connect(const Endpoint& remote) {
  if (connecting_) {  // the result of the last call first, as on Linux
    if (state_ == State::syn_sent || state_ == State::syn_received) return Error(EALREADY);
    connecting_ = false;
    if (state_ != State::closed) return {};
    return Error(error_ != 0 ? take_error() : ECONNABORTED);
  }
  if (state_ != State::closed) return Error(EISCONN);
  Endpoint to = remote;
  if (to.address.is_any()) {  // as Linux has it: this very host
    to.address =
        to.address.is_v4() || family_ == Family::v4 ? IpAddress::v4(127, 0, 0, 1) : IpAddress{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};
  }
  if (to.address.is_v4() ? family_ == Family::v6 && options_.v6_only : family_ == Family::v4) return Error(ENETUNREACH);
  if (to.port == 0) return Error(EADDRNOTAVAIL);
  if (engine_.flows.size() >= engine_.limits.connections) return Error(EAGAIN);
  auto route = TRY(engine_.lower.route(to, bucket != nullptr ? bound : flow.local.address));
  flow.local.address = route.local;
  flow.local.interface = bound_interface;
  TRY(prepare_flow(to));
  u64 now = engine_.lower.now_ns();
  start_syn_sent(route, now);
  schedule();
  return Error(EINPROGRESS);
}

// A local port, and a flow that nobody else has.
Result<void> Connection::prepare_flow(const Endpoint& remote) {
  flow.remote = remote;
  if (bucket != nullptr) {
    flow.local.port = bucket->port;
    if (engine_.flows.find(flow) != nullptr) return Error(EADDRNOTAVAIL);
    bound = flow.local.address;
    return {};
  }
  u16 port = engine_.ports.choose_for(flow.local.address, remote, [&](u16 candidate) {
    PortBucket* taken = engine_.ports.find(candidate);
    if (taken != nullptr && (!taken->listeners.empty() || !taken->others.front()->port_was_chosen)) return false;
    flow.local.port = candidate;
    return engine_.flows.find(flow) == nullptr;
  });
  flow.local.port = port;
  if (port == 0) return Error(EADDRNOTAVAIL);
  take_binding_options();
  bound = flow.local.address;
  port_was_chosen = true;
  return engine_.ports.attach(*this, port);
}

void Connection::queue_fin() {
  if (fin_queued_) return;
  fin_queued_ = true;
  if (state_ == State::syn_received) return;  // RFC 9293 §3.10.4: after ESTABLISHED
  if (synchronised()) --engine_.counters.current_established;
  state_ = state_ == State::close_wait ? State::last_ack : State::fin_wait_1;
  mark_ready();
}

Result<void> Connection::shutdown(int how) {
  if (how < 0 || how > 2) return Error(EINVAL);
  u8 bits = static_cast<u8>(how + 1);
  if (state_ == State::closed) {
    shutdown_ |= bits;
    notify_now();
    return Error(ENOTCONN);
  }
  if (state_ == State::listen) {
    if ((bits & 1) != 0) stop_listening();
    return {};
  }
  shutdown_ |= bits;
  if (state_ == State::syn_sent) {
    become_closed(0);
    return {};
  }
  bool may_finish = state_ == State::established || state_ == State::close_wait || state_ == State::syn_received;
  if ((bits & 2) != 0 && may_finish) queue_fin();
  if ((bits & 1) != 0) notify_now();
  return {};
}

// RFC 9293 §3.10.4.
void Connection::close() {
  observer_ = nullptr;
  orphan_ = true;
  if (state_ == State::closed) {
    received_.clear();
    return engine_.ports.detach(*this);
  }
  if (state_ == State::listen) return stop_listening();
  if (state_ == State::syn_sent) return become_closed(0);
  bool unread = !received_.empty();  // RFC 2525 §2.17
  received_.clear();
  if (unread || (options_.linger && options_.linger_s == 0)) return reset_peer();
  shutdown_ = 3;
  if (state_ == State::fin_wait_2) deadlines_.keep = engine_.lower.now_ns() + TimeWaits::kTime;
  if (state_ == State::established || state_ == State::close_wait || state_ == State::syn_received) queue_fin();
  schedule();
}

void Connection::stop_listening() {
  while (Connection* child = listener_->accept_queue.pop_front()) {
    child->orphan_ = true;
    child->received_.clear();
    if (child->state_ != State::closed) child->reset_peer();
    child->unref();
  }
  while (!listener_->requests.empty()) delete listener_->requests.front();
  listener_.reset();
  state_ = State::closed;
  if (orphan_) engine_.ports.detach(*this);
  else engine_.ports.set_listening(*this, false);  // still bound
  notify_now();
}

void Connection::reset_peer() {
  if (synchronised() || state_ == State::syn_received) {
    emit(kRst | kAck, send_.nxt, nullptr, 0);
    ++engine_.counters.out_resets;
    if (state_ == State::established || state_ == State::close_wait) ++engine_.counters.estab_resets;
  }
  become_closed(0);
}

void Connection::become_closed(int error) {
  bool was = anchored_;
  if (state_ == State::established || state_ == State::close_wait) --engine_.counters.current_established;
  if (state_ == State::syn_sent || state_ == State::syn_received) ++engine_.counters.attempt_fails;
  state_ = State::closed;
  shutdown_ = 3;
  if (error != 0) error_ = error;
  engine_.flows.remove(*this);
  if (orphan_ || port_was_chosen || passive_) engine_.ports.detach(*this);
  engine_.timers.cancel(*this);
  deadlines_ = {};
  queue_.clear();
  reassembly_.reset();
  scoreboard_.reset();
  if (orphan_) received_.clear();
  notify_now();
  anchored_ = false;
  if (was) engine_.let_go(*this);
}

void Connection::abort_silently() {
  orphan_ = true;
  observer_ = nullptr;
  received_.clear();
  if (state_ == State::listen) return stop_listening();
  if (state_ != State::closed) become_closed(0);
}

void Connection::set_options(const Options& options) {
  bool flush = (options_.cork && !options.cork) || (!options_.no_delay && options.no_delay);
  bool quick = options.quick_ack && !options_.quick_ack;
  bool keep = options.keep_alive != options_.keep_alive || options.keep_idle_s != options_.keep_idle_s;
  options_ = options;
  if (bucket != nullptr) reuse_address = options.reuse_address, reuse_port = options.reuse_port;
  if (!synchronised()) return;
  if (quick) quick_acks_left_ = 16, interactive_ = false;
  if (keep) arm_keep(engine_.lower.now_ns());
  if (flush) {
    push_partial_ = queue_.end() > send_.nxt;
    mark_ready();
  }
  if (options.receive_buffer != 0) receive_.limit = std::min(options.receive_buffer, engine_.limits.receive_buffer_max);
  if (quick && ack_pending_) mark_ready();
  schedule();
}

}  // namespace husk::net::tcp
