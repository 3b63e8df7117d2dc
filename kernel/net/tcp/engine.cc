// See engine.h.
#include "kernel/net/tcp/engine.h"

#include "kernel/net/tcp/connection.h"

namespace husk::net::tcp {

const char* name_of(State state) {
  constexpr const char* kNames[] = {"CLOSED",     "LISTEN",     "SYN_SENT", "SYN_RECEIVED", "ESTABLISHED", "FIN_WAIT_1",
                                    "FIN_WAIT_2", "CLOSE_WAIT", "CLOSING",  "LAST_ACK",     "TIME_WAIT"};
  return kNames[static_cast<size_t>(state)];
}

Result<Owned<Tcp>> Tcp::create(Lower& lower, const Limits& limits) {
  auto engine = TRY(make_owned<Engine>(lower, limits));
  TRY(engine->init());
  return Owned<Tcp>(std::move(engine));
}

Engine::Engine(Lower& below, const Limits& bounds)
    : lower(below),
      limits(bounds),
      memory(bounds.memory),
      secrets(below),
      flows(secrets.flow_hash),
      ports(secrets, bounds.port_first, bounds.port_last),
      time_waits(*this, std::max(bounds.connections / 4, 16u)) {}

Result<void> Engine::init() {
  TRY(flows.init());
  return ports.init();
}

Engine::~Engine() {
  flows.for_each([](FlowEntry& entry) {
    if (entry.kind == FlowEntry::Kind::connection) static_cast<Connection&>(entry).abort_silently();
  });
  ports.for_each_listener([](Binding& binding) { static_cast<Connection&>(binding).abort_silently(); });
  while (Connection* connection = ready.pop_front()) connection->abort_silently();
  reap();
  time_waits.clear();
  HUSK_ASSERT(counters.sockets == 0);  // whoever has sockets lets them go first
}

Result<Ref<Socket>> Engine::socket(Family family) {
  auto made = TRY(Connection::create(*this, family));
  return Ref<Socket>(std::move(made));
}

void Engine::input(const Flow& flow, const Segment& segment, PacketPtr payload, u32 pieces) {
  counters.in_segments += pieces;
  FlowEntry* entry = flows.find(flow);
  if (entry == nullptr) input_without_connection(flow, segment, std::move(payload));
  else if (entry->kind == FlowEntry::Kind::connection) static_cast<Connection*>(entry)->input(segment, std::move(payload), pieces);
  else if (entry->kind == FlowEntry::Kind::request) static_cast<Request*>(entry)->input(segment, std::move(payload), pieces);
  else time_waits.input(static_cast<TimeWait&>(*entry), segment, std::move(payload));
  reap();
}

void Engine::input_without_connection(const Flow& flow, const Segment& segment, PacketPtr payload) {
  if (Connection* listener = find_listener(flow)) return listener->listen_input(flow, segment, std::move(payload), {});
  send_reset_for(flow, segment);
}

// The most specific listener; of equals (SO_REUSEPORT) one by the hash of the flow.
Connection* Engine::find_listener(const Flow& flow) const {
  PortBucket* bucket = ports.find(flow.local.port);
  if (bucket == nullptr) return nullptr;
  Binding* best = nullptr;
  int best_score = -1;
  u32 equals = 0, hash = flows.hash_of(flow);
  for (Binding& binding : bucket->listeners) {
    if (!Ports::covers(binding, flow.local.address)) continue;
    if (binding.bound_interface != 0 && binding.bound_interface != flow.local.interface) continue;
    int score = (binding.bound == flow.local.address ? 4 : 0) + (binding.bound_interface != 0 ? 2 : 0) + (binding.bound == IpAddress{} ? 0 : 1);
    if (score < best_score) continue;
    equals = score > best_score ? 1 : equals + 1;
    best_score = score;
    // Each of n equals is chosen with the same chance.
    if (equals == 1 || (u64{hash * 2654435761u * equals} * equals >> 32) == 0) best = &binding;
  }
  return static_cast<Connection*>(best);
}

void Engine::send(const Flow& flow, const Segment& segment, PacketPtr payload, u16 segment_size, u8 traffic_class, u8 hop_limit) {
  ++counters.out_segments;
  lower.output(flow, segment, std::move(payload), segment_size, traffic_class, hop_limit);
}

void Engine::send_reset_for(const Flow& flow, const Segment& offending) {
  if (offending.has(kRst) || !resets_.allows(lower.now_ns())) return;
  Segment reset;
  reset.flags = kRst;
  if (offending.has(kAck)) {
    reset.seq = offending.ack;
  } else {
    reset.flags |= kAck;
    reset.ack = offending.seq + offending.length();
  }
  ++counters.out_resets;
  send(flow, reset);
}

void Engine::network_error(const Flow& flow, SeqNum sequence, int error, u16 mtu) {
  FlowEntry* entry = flows.find(flow);
  if (entry == nullptr) return;
  if (entry->kind == FlowEntry::Kind::connection) static_cast<Connection*>(entry)->network_error(sequence, error, mtu);
  if (entry->kind == FlowEntry::Kind::request && mtu == 0 && static_cast<Request*>(entry)->concerns(sequence)) delete static_cast<Request*>(entry);
  reap();
}

void Engine::run() {
  u64 now = lower.now_ns();
  time_waits.expire(now);
  while (Timer* timer = timers.pop_due(now)) timer->on_timer(now);
  // Connections that become ready meanwhile have their turn too.
  while (Connection* connection = ready.pop_front()) connection->run(now);
  reap();
  if (starved && memory.used() <= memory.limit() / 4 * 3) wake_starved();
}

void Engine::wake_starved() {
  starved = false;
  flows.for_each([](FlowEntry& entry) {
    if (entry.kind == FlowEntry::Kind::connection) static_cast<Connection&>(entry).wake_if_starved();
  });
}

void Engine::let_go(Connection& connection) {
  connection.ListNode<ReadyTag>::unlink();
  ended_.push_back(&connection);
}

void Engine::reap() {
  while (Connection* connection = ended_.pop_front()) connection->unref();
}

Tcp::Statistics Engine::statistics() const {
  Statistics result = counters;
  result.memory_used = memory.used();
  result.time_wait = time_waits.count();
  return result;
}

void Engine::visit(Visitor& visitor) const {
  Information none = {};
  flows.for_each([&](FlowEntry& entry) {
    if (entry.kind == FlowEntry::Kind::connection) {
      visitor.visit(entry.flow, static_cast<Connection&>(entry).information());
    } else {
      none.state = entry.kind == FlowEntry::Kind::request ? State::syn_received : State::time_wait;
      visitor.visit(entry.flow, none);
    }
  });
  ports.for_each_listener([&](Binding& binding) {
    auto& connection = static_cast<Connection&>(binding);
    visitor.visit(connection.flow, connection.information());
  });
}

}  // namespace husk::net::tcp
