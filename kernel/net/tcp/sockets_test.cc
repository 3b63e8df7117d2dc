// The calls of a socket as Linux has them: bind rules, listeners, the accept queue, SYN cookies (RFC 4987), connect, ports (RFC 6056), events.
#include "kernel/net/tcp/script_test.h"

namespace husk::net::tcp::test {
namespace {

struct TcpSockets : ::testing::Test {
  Script t;
  static Endpoint v4(u8 last, u16 port) { return {last == 0 ? IpAddress::v4(0, 0, 0, 0) : IpAddress::v4(10, 0, 0, last), port}; }
  Ref<Socket> make(Family family, auto&& change) {
    auto socket = t.make_socket(family);
    Options options = socket->options();
    change(options);
    socket->set_options(options);
    return socket;
  }
  Ref<Socket> plain(Family family = Family::v4) { return t.make_socket(family); }
  Ref<Socket> reusing(Family family = Family::v4) {
    return make(family, [](Options& o) { o.reuse_address = true; });
  }
  int bind(Ref<Socket> socket, Endpoint to) { return socket->bind(to).error().code(); }
  // A handshake from 10.0.0.2:port; true if it was answered with SYN-ACK.
  bool knock(u16 port) {
    t.remote.port = port;
    t.own_first_known = false;
    Segment syn;
    syn.seq = t.peer_first;
    syn.flags = kSyn;
    syn.mss = 1460;
    t.tcp->input({t.local, t.remote}, syn, nullptr, 1);
    if (t.lower.sent.empty()) return false;
    t.own_first = t.lower.sent.back().segment.seq;
    t.lower.sent.clear();
    return true;
  }
};

TEST_F(TcpSockets, unconnected_events_are_out_and_hup) {
  t.socket = plain();
  t.run("events OUT|HUP\nrecv ENOTCONN\nstate CLOSED");
  vfs::IoBuffer nothing({}, vfs::IoBuffer::Memory::kernel);
  EXPECT_EQ(t.socket->send(nothing, Socket::More::no).error().code(), EPIPE);
  EXPECT_EQ(t.socket->shutdown(2).error().code(), ENOTCONN);
  EXPECT_EQ(t.socket->accept().error().code(), EINVAL);
}
TEST_F(TcpSockets, bind_chooses_a_port_once) {
  auto s = plain();
  EXPECT_EQ(bind(s, v4(0, 0)), 0);
  EXPECT_GE(s->local().port, 32768);
  EXPECT_EQ(bind(s, v4(0, 81)), EINVAL);
  EXPECT_EQ(bind(plain(), v4(9, 80)), EADDRNOTAVAIL);
}
TEST_F(TcpSockets, bind_conflicts_without_options) {
  EXPECT_EQ(bind(plain(), v4(0, 80)), 0);
  EXPECT_EQ(bind(plain(), v4(0, 80)), EADDRINUSE);
  EXPECT_EQ(bind(plain(), v4(1, 80)), EADDRINUSE);
  EXPECT_EQ(bind(reusing(), v4(1, 80)), EADDRINUSE);
  EXPECT_EQ(bind(plain(Family::v6), {IpAddress{}, 80}), EADDRINUSE);
  EXPECT_EQ(bind(make(Family::v6, [](Options& o) { o.v6_only = true; }), {IpAddress{}, 80}), 0);
  EXPECT_EQ(bind(plain(), {IpAddress::v4(127, 0, 0, 1), 81}), 0);
  EXPECT_EQ(bind(plain(), v4(1, 81)), 0);
}
TEST_F(TcpSockets, bind_dual_stack_takes_v4_too) {
  EXPECT_EQ(bind(plain(Family::v6), {IpAddress{}, 80}), 0);
  EXPECT_EQ(bind(plain(), v4(1, 80)), EADDRINUSE);
  EXPECT_EQ(bind(plain(), v4(0, 80)), EADDRINUSE);
}
TEST_F(TcpSockets, reuse_address_shares_until_one_listens) {
  auto a = reusing(), b = reusing();
  EXPECT_EQ(bind(a, v4(0, 80)), 0);
  EXPECT_EQ(bind(b, v4(0, 80)), 0);
  EXPECT_TRUE(a->listen(1).ok());
  EXPECT_EQ(b->listen(1).error().code(), EADDRINUSE);
  EXPECT_EQ(bind(reusing(), v4(0, 80)), EADDRINUSE);
}
TEST_F(TcpSockets, reuse_port_lets_many_listen_and_spreads) {
  std::vector<Ref<Socket>> listeners;
  for (int i = 0; i < 4; ++i) {
    listeners.push_back(make(Family::v4, [](Options& o) { o.reuse_port = true; }));
    ASSERT_EQ(bind(listeners.back(), v4(0, 80)), 0);
    ASSERT_TRUE(listeners.back()->listen(100).ok());
  }
  for (u16 port = 1000; port < 1080; ++port) {
    ASSERT_TRUE(knock(port));
    t.run("in: A seq 1 ack 1");
  }
  for (auto& listener : listeners) {
    u32 count = 0;
    for (auto got = listener->accept(); got.ok(); got = listener->accept()) t.sockets.push_back(got.release()), ++count;
    EXPECT_GT(count, 5u);
    EXPECT_LT(count, 45u);
  }
}
TEST_F(TcpSockets, a_server_that_restarts_needs_reuse_address_while_connections_wait) {
  t.listener = reusing();
  EXPECT_EQ(bind(t.listener, v4(0, 80)), 0);
  EXPECT_TRUE(t.listener->listen(5).ok());
  t.run("in: S seq 0\nout: SA\nin: A seq 1 ack 1\naccept\nclose\nout: FA\nin: FA seq 1 ack 2\nout: A");
  t.listener->close();
  EXPECT_EQ(t.tcp->statistics().time_wait, 1u);
  EXPECT_EQ(bind(plain(), v4(0, 80)), EADDRINUSE);
  auto again = reusing();
  EXPECT_EQ(bind(again, v4(0, 80)), 0);
  EXPECT_TRUE(again->listen(5).ok());
}
TEST_F(TcpSockets, the_most_specific_listener_gets_the_connection) {
  auto any = plain(Family::v6);
  EXPECT_EQ(bind(any, {IpAddress{}, 80}), 0);
  EXPECT_TRUE(any->listen(5).ok());
  ASSERT_TRUE(knock(1000));
  t.run("in: A seq 1 ack 1");
  auto got = any->accept();
  ASSERT_TRUE(got.ok());
  EXPECT_EQ((*got)->remote().address, IpAddress::v4(10, 0, 0, 2));
  t.sockets.push_back(got.release());
}
TEST_F(TcpSockets, listener_events_and_close_resets_its_queue) {
  t.run("listen\nin: S seq 0\nout: SA\nin: A seq 1 ack 1\nquiet");
  EXPECT_EQ(t.listener->events(), u32{kReadable});
  t.listener->close();
  t.run("out: RA seq 1 ack 1\nquiet");
  EXPECT_EQ(t.tcp->statistics().sockets, 1u);
}
TEST_F(TcpSockets, shutdown_of_reading_ends_listening) {
  t.run("listen");
  EXPECT_TRUE(t.listener->shutdown(0).ok());
  EXPECT_EQ(t.listener->state(), State::closed);
  t.run("in: S seq 0\nout: RA");
  EXPECT_TRUE(t.listener->listen(3).ok());
}
TEST_F(TcpSockets, a_full_accept_queue_refuses_who_comes_and_takes_who_was_let_in) {
  t.run("listen 0");
  ASSERT_TRUE(knock(1000));
  SeqNum first = t.own_first;
  ASSERT_TRUE(knock(1001));
  SeqNum second = t.own_first;
  t.own_first = first;
  t.remote.port = 1000;
  t.run("in: A seq 1 ack 1");
  t.own_first = second;
  t.remote.port = 1001;
  t.run("in: A seq 1 ack 1 len 5 win 1000\nout: A ack 6");  // its first words are not lost
  EXPECT_EQ(t.tcp->statistics().listen_overflows, 0u);
  EXPECT_FALSE(knock(1002));
  EXPECT_EQ(t.tcp->statistics().listen_overflows, 1u);
  t.run("accept\naccept");
  EXPECT_TRUE(knock(1002));
}
TEST_F(TcpSockets, rfc4987_3_6_cookies_when_too_many_are_half_open) {
  Tcp::Limits limits;
  limits.half_open = 2;
  Script u(limits);
  u.run("listen");
  for (u16 port = 1000; port < 1005; ++port) {
    u.remote.port = port;
    u.own_first_known = false;
    u.run("in: S seq 0 mss 1400 scale 7 sackok ts 50 0\nout: SA seq 0 ack 1");
  }
  EXPECT_EQ(u.tcp->statistics().syn_cookies_sent, 3u);
  u.run("in: A seq 1 ack 1 ts 51 " + std::to_string(u.last_sent.timestamp_value) + "\naccept\nstate ESTABLISHED\nsend 3000\nout: A len 1388");
  Information information = u.socket->information();
  EXPECT_EQ(information.window_scale_send, 7);
  EXPECT_EQ(information.options & 3, 3);
  EXPECT_EQ(u.tcp->statistics().syn_cookies_received, 1u);
  u.run("drain");
  u.remote.port = 1099;
  u.run("in: A seq 1 ack 1\nout: R seq 1");
  EXPECT_EQ(u.tcp->statistics().syn_cookies_failed, 1u);
}
TEST_F(TcpSockets, rfc7323_5_3_what_a_cookie_says_in_its_timestamp_is_not_ahead_of_what_follows) {
  Tcp::Limits limits;
  limits.half_open = 0;
  Script u(limits);
  u.run("listen\nin: S seq 0 mss 1400 sackok ts 50 0\nout: SA");  // no scale: all of the bits are ones
  u32 first = u.last_sent.timestamp_value;
  u.run("in: A seq 1 ack 1 ts 51 " + std::to_string(first) + "\naccept\nsend 10\nout: A len 10");
  EXPECT_GE(static_cast<i32>(u.last_sent.timestamp_value - first), 0);
  u.run("drain");
}
TEST_F(TcpSockets, rfc4987_3_6_cookies_grow_old) {
  Tcp::Limits limits;
  limits.half_open = 0;
  Script u(limits);
  u.run("listen\nin: S seq 0 mss 1400\nout: SA\nadvance 130s\nin: A seq 1 ack 1\nout: R seq 1");
}
TEST_F(TcpSockets, defer_accept_waits_for_data) {
  t.run("listen");
  Options options = t.listener->options();
  options.defer_accept_s = 3;
  t.listener->set_options(options);
  t.run("in: S seq 0\nout: SA\nin: A seq 1 ack 1\nquiet");
  EXPECT_EQ(t.listener->accept().error().code(), EAGAIN);
  t.run("in: A seq 1 ack 1 len 10\nout: A ack 11\naccept\nrecv 10");
}
TEST_F(TcpSockets, connect_results_as_on_linux) {
  t.open_active();
  EXPECT_TRUE(t.socket->connect(t.remote).ok());  // tells that it succeeded, once
  EXPECT_EQ(t.socket->connect(t.remote).error().code(), EISCONN);
  auto other = plain();
  EXPECT_EQ(other->connect({IpAddress::v4(10, 0, 0, 3), 9}).error().code(), EINPROGRESS);
  EXPECT_EQ(other->connect({IpAddress::v4(10, 0, 0, 3), 9}).error().code(), EALREADY);
  t.lower.sent.clear();
  t.lower.route_error = ENETUNREACH;
  EXPECT_EQ(plain()->connect(t.remote).error().code(), ENETUNREACH);
  t.lower.route_error = 0;
  auto listening = plain();
  EXPECT_TRUE(listening->listen(1).ok());
  EXPECT_EQ(listening->connect(t.remote).error().code(), EISCONN);
}
TEST_F(TcpSockets, a_refused_connect_may_be_tried_again) {
  t.run("connect\nout: S\nin: RA seq 0 ack 1\nstate CLOSED");
  EXPECT_EQ(t.socket->connect(t.remote).error().code(), ECONNREFUSED);
  EXPECT_EQ(t.socket->connect(t.remote).error().code(), EINPROGRESS);
  t.lower.sent.clear();
}
TEST_F(TcpSockets, connect_and_shutdown_again_and_again_between_two_runs) {
  auto socket = plain();
  auto to = Endpoint{IpAddress::v4(10, 0, 0, 3), 9};
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(socket->connect(to).error().code(), EINPROGRESS);
    EXPECT_TRUE(socket->shutdown(2).ok());
    EXPECT_EQ(socket->connect(to).error().code(), ECONNABORTED);  // what became of the last one
  }
  EXPECT_EQ(socket->connect(to).error().code(), EINPROGRESS);
  t.tcp->run();  // must not let go of what is connecting
  EXPECT_EQ(socket->state(), State::syn_sent);
  u64 before = t.tcp->statistics().sockets;
  socket->close();
  t.lower.sent.clear();
  t.sockets.clear();
  socket = nullptr;
  t.tcp->run();
  EXPECT_EQ(t.tcp->statistics().sockets, before - 1);
}
TEST_F(TcpSockets, a_second_connection_knows_nothing_of_the_first) {
  t.open_active("mss 1460 sackok");
  t.run("send 100\nout: A\nin: FA seq 1 ack 101\ndrain\nin: R seq 2\nstate CLOSED\nrecv eof");
  (void)t.socket->take_error();
  while (t.socket->connect(t.remote).error().code() != EINPROGRESS) ASSERT_EQ(t.socket->state(), State::closed);
  t.local = t.socket->local();
  t.own_first_known = false;
  t.sent_bytes = t.read_bytes = 0;
  t.peer_first = tcp::SeqNum{900'000};
  t.run("out: S seq 0\nin: SA seq 0 ack 1 win 65535 mss 1460\nout: A seq 1 ack 1\nstate ESTABLISHED\nevents OUT\nrecv EAGAIN");
  t.run("in: A seq 1 ack 1 len 10\nout: A seq 1 ack 11\nrecv 10\nin: FA seq 11 ack 1\nout: A ack 12\nrecv eof\nstate CLOSE_WAIT");
}
TEST_F(TcpSockets, rfc6056_3_3_4_ports_differ_and_are_in_the_range) {
  std::map<u16, int> ports;
  for (int i = 0; i < 200; ++i) {
    auto socket = plain();
    EXPECT_EQ(socket->connect({IpAddress::v4(10, 0, 0, 2), 80}).error().code(), EINPROGRESS);
    ++ports[socket->local().port];
  }
  t.lower.sent.clear();
  EXPECT_EQ(ports.size(), 200u);
  EXPECT_GE(ports.begin()->first, 32768);
  EXPECT_LE(ports.rbegin()->first, 60999);
}
TEST_F(TcpSockets, ports_run_out_with_eaddrnotavail_and_serve_other_destinations) {
  Tcp::Limits limits;
  limits.port_first = 40000, limits.port_last = 40009;
  Script u(limits);
  for (int i = 0; i < 11; ++i)
    EXPECT_EQ(u.make_socket()->connect({IpAddress::v4(10, 0, 0, 2), 80}).error().code(), i < 10 ? EINPROGRESS : EADDRNOTAVAIL);
  EXPECT_EQ(u.make_socket()->connect({IpAddress::v4(10, 0, 0, 3), 80}).error().code(), EINPROGRESS);
  u.lower.sent.clear();
}
TEST_F(TcpSockets, rfc6528_3_initial_numbers_differ_by_flow_and_grow_with_time) {
  t.run("listen");
  ASSERT_TRUE(knock(1000));
  SeqNum first = t.own_first;
  ASSERT_TRUE(knock(1001));
  EXPECT_GT(std::abs(static_cast<i32>(t.own_first - first)), 1000);
  t.remote.port = 1000;
  t.own_first = first;
  t.run("in: R seq 1");
  t.lower.now += 4'000'000;
  ASSERT_TRUE(knock(1000));
  EXPECT_EQ(t.own_first - first, 1000u);
}
TEST_F(TcpSockets, connect_to_oneself) {
  t.socket = plain();
  t.socket->set_observer(&t.observer);
  ASSERT_EQ(bind(t.socket, v4(1, 5000)), 0);
  EXPECT_EQ(t.socket->connect(v4(1, 5000)).error().code(), EINPROGRESS);
  for (int i = 0; i < 20 && !t.lower.sent.empty(); ++i) {
    Sent sent = std::move(t.lower.sent.front());
    t.lower.sent.pop_front();
    t.tcp->input({sent.flow.remote, sent.flow.local}, sent.segment, std::move(sent.payload), 1);
    t.tcp->run();
  }
  t.run("quiet\nstate ESTABLISHED\nevents OUT");
}
TEST_F(TcpSockets, family_rules) {
  EXPECT_EQ(bind(plain(), {IpAddress::v6("\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1"), 80}), EINVAL);
  EXPECT_EQ(bind(plain(Family::v6), v4(1, 80)), 0);
  EXPECT_EQ(bind(make(Family::v6, [](Options& o) { o.v6_only = true; }), v4(1, 81)), EINVAL);
  EXPECT_EQ(plain(Family::v6)->connect({IpAddress::v4(10, 0, 0, 2), 80}).error().code(), EINPROGRESS);
  t.lower.sent.clear();
}
TEST_F(TcpSockets, hang_up_only_when_both_directions_are_closed) {
  t.open_passive();
  t.run("events OUT\nin: FA seq 1 ack 1\nout: A\nevents IN|OUT|RDHUP\nclose\nout: FA\nin: A seq 2 ack 2\nevents IN|OUT|HUP|RDHUP");
}
TEST_F(TcpSockets, options_are_inherited_from_the_listener) {
  t.run("listen");
  Options options = t.listener->options();
  options.no_delay = true;
  options.keep_idle_s = 17;
  t.listener->set_options(options);
  t.run("in: S seq 0\nout: SA\nin: A seq 1 ack 1\naccept");
  EXPECT_TRUE(t.socket->options().no_delay);
  EXPECT_EQ(t.socket->options().keep_idle_s, 17u);
}
TEST_F(TcpSockets, ten_thousand_idle_connections_cost_no_time_and_no_buffers) {
  t.run("listen 100");
  for (u32 i = 0; i < 10'000; ++i) {
    ASSERT_TRUE(knock(static_cast<u16>(1000 + i)));
    Segment ack;
    ack.seq = t.peer_first + 1;
    ack.ack = t.own_first + 1;
    ack.flags = kAck;
    ack.window = 65535;
    t.tcp->input({t.local, t.remote}, ack, nullptr, 1);
    auto got = t.listener->accept();
    ASSERT_TRUE(got.ok());
    t.sockets.push_back(got.release());
    t.tcp->run();
  }
  EXPECT_EQ(t.tcp->statistics().memory_used, 0u);
  EXPECT_EQ(t.tcp->next_deadline_ns(), ~u64{0});
  EXPECT_EQ(t.tcp->statistics().current_established, 10'000u);
  class Count final : public Tcp::Visitor {
   public:
    void visit(const Flow&, const Information& information) override { ++states[static_cast<int>(information.state)]; }
    int states[11] = {};
  } count;
  t.tcp->visit(count);
  EXPECT_EQ(count.states[static_cast<int>(State::established)], 10'000);
  EXPECT_EQ(count.states[static_cast<int>(State::listen)], 1);
  for (auto& socket : t.sockets) socket->close();
  t.tcp->run();
  t.lower.sent.clear();
}

}  // namespace
}  // namespace husk::net::tcp::test
