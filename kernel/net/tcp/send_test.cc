// Sending: windows, Nagle and cork, silly windows, persist (RFC 9293 §3.8.6), path MTU, offload; buffers and events.
#include "kernel/net/tcp/script_test.h"

namespace husk::net::tcp::test {
namespace {

struct TcpSend : ::testing::Test {
  Script t;
  void set(auto&& change) {
    Options options = t.options();
    change(options);
    t.set(options);
  }
};

TEST_F(TcpSend, rfc6928_2_initial_window_is_ten_segments) {
  t.open_passive();
  t.run("send 20000");
  for (int i = 0; i < 10; ++i) t.run("out: A len 1460");
  t.run("quiet");
}
TEST_F(TcpSend, rfc9293_3_7_1_segments_are_no_larger_than_the_peers_mss) {
  t.open_passive("mss 500");
  t.run("send 700\nout: A len 500\nout: A len 200");
}
TEST_F(TcpSend, rfc9293_3_7_1_default_mss_is_536) {
  t.open_passive("");
  t.run("send 700\nout: A len 536\nout: A len 164");
}
TEST_F(TcpSend, rfc9293_3_8_6_window_is_respected) {
  t.open_passive();
  t.run(
      "in: A seq 1 ack 1 win 3000\nsend 5000\nout: A seq 1 len 1460\nout: A seq 1461 len 1460\nquiet\nin: A seq 1 ack 2921 win 3000\nout: A seq 2921 "
      "len 1460\nout: A seq 4381 len 620");
}
TEST_F(TcpSend, rfc7323_2_window_of_peer_is_scaled) {
  t.open_passive("mss 1460 scale 3");
  t.run("in: A seq 1 ack 1 win 365\nsend 5000\nout: A len 1460\nout: A len 1460\nquiet");
}
TEST_F(TcpSend, rfc896_nagle_holds_a_second_small_segment_until_the_first_is_acked) {
  t.open_passive();
  t.run("send 10\nout: A len 10\nsend 10\nsend 20\nquiet\nin: A seq 1 ack 11\nout: A seq 11 len 30");
}
TEST_F(TcpSend, rfc896_full_segments_do_not_wait) {
  t.open_passive();
  t.run("send 10\nout: A len 10\nsend 1460\nout: A len 1460\nsend 1500\nout: A len 1460\nquiet");
}
TEST_F(TcpSend, minshall_a_rest_goes_behind_full_segments) {
  t.open_passive();
  t.run("send 3000\nout: A len 1460\nout: A len 1460\nout: A len 80\nquiet");
}
TEST_F(TcpSend, no_delay_sends_at_once) {
  t.open_passive();
  set([](Options& o) { o.no_delay = true; });
  t.run("send 10\nout: A len 10\nsend 10\nout: A len 10");
}
TEST_F(TcpSend, setting_no_delay_pushes_what_waits) {
  t.open_passive();
  t.run("send 10\nout: A len 10\nsend 10\nquiet");
  set([](Options& o) { o.no_delay = true; });
  t.run("out: A len 10");
}
TEST_F(TcpSend, cork_holds_partial_segments_for_200_ms) {
  t.open_passive();
  set([](Options& o) { o.cork = true; });
  t.run("send 10\nsend 1500\nout: A seq 1 len 1460\nquiet\nin: A seq 1 ack 1461\nquiet\nadvance 200ms\nout: A seq 1461 len 50");
  t.run("in: A seq 1 ack 1511\nsend 5\nquiet");
  set([](Options& o) { o.cork = false; });
  t.run("out: A len 5");
}
TEST_F(TcpSend, msg_more_holds_until_the_next_send) {
  t.open_passive();
  t.run("send 10 more\nquiet\nsend 10 more\nquiet\nsend 10\nout: A seq 1 len 30");
}
TEST_F(TcpSend, rfc9293_3_8_6_2_1_sender_avoids_silly_windows) {
  t.open_passive();
  t.run("in: A seq 1 ack 1 win 10000\nin: A seq 1 ack 1 win 100\nsend 5000\nquiet\nin: A seq 1 ack 1 win 1460\nout: A len 1460\nquiet");
}
TEST_F(TcpSend, rfc9293_3_8_6_2_1_half_of_the_largest_window_is_enough) {
  t.run(
      "listen\nin: S seq 0 mss 1460 win 1000\nout: SA\nin: A seq 1 ack 1 win 1000\naccept\nsend 5000\nout: A len 1000\nin: A seq 1 ack 1001 win "
      "500\nout: A len 500");
}
TEST_F(TcpSend, rfc9293_3_8_6_1_zero_window_is_probed_with_backoff_and_opens) {
  t.open_passive();
  t.run(
      "in: A seq 1 ack 1 win 0\nsend 100\nquiet\nadvance 200ms\nout: A seq 0 len 0\nin: A seq 1 ack 1 win 0\nadvance 400ms\nout: A seq 0\nadvance "
      "800ms\nout: A seq 0");
  t.run("in: A seq 1 ack 1 win 1000\nout: A seq 1 len 100\nin: A seq 1 ack 101\nadvance 10s\nquiet");
}
TEST_F(TcpSend, rfc9293_3_8_6_1_a_peer_that_answers_probes_is_never_given_up) {
  t.open_passive();
  t.run("in: A seq 1 ack 1 win 0\nsend 100");
  for (int i = 0; i < 40; ++i) t.run("advance 121s\ndrain\nin: A seq 1 ack 1 win 0");
  t.run("state ESTABLISHED");
}
TEST_F(TcpSend, rfc9293_3_8_6_1_a_peer_that_answers_is_never_given_up_with_data_in_flight) {
  t.open_passive();
  t.run("send 2920\ndrain\nin: A seq 1 ack 1461 win 0");
  u32 mss = t.socket->information().mss_send;
  for (int i = 0; i < 2000; ++i) t.run("advance 1s\ndrain\nin: A seq 1 ack 1461 win 0");
  t.run("state ESTABLISHED\nin: A seq 1 ack 2921 win 1000\nsend 100\nout: A seq 2921 len 100");
  EXPECT_EQ(t.socket->information().mss_send, mss);
}
TEST_F(TcpSend, rfc9293_3_8_6_a_fin_waits_for_the_window) {
  t.open_passive();
  t.run("send 100\nout: A\nin: A seq 1 ack 101 win 0\nshutdown 1\nquiet\nadvance 200ms\nout: A seq 100 len 0\nin: A seq 1 ack 101 win 0");
  for (int i = 0; i < 2000; ++i) t.run("advance 1s\ndrain\nin: A seq 1 ack 101 win 0");
  t.run("in: A seq 1 ack 101 win 1000\nout: FA seq 101 len 0\nin: A seq 1 ack 102\nstate FIN_WAIT_2");
}
TEST_F(TcpSend, rfc9293_3_8_6_a_fin_behind_data_that_fill_the_window_waits) {
  t.open_passive();
  t.run(
      "in: A seq 1 ack 1 win 1000\nsend 900\nout: A\nsend 100\nshutdown 1\nout: A seq 901 len 100\nquiet\nin: A seq 1 ack 901 win 1000\nout: FA seq "
      "1001");
}
TEST_F(TcpSend, rfc6298_5_1_a_probes_deadline_is_not_the_datas) {
  t.open_passive();
  t.run("in: A seq 1 ack 1 win 100\nsend 5000\nquiet\nadvance 199ms\nin: A seq 1 ack 1 win 60000");
  for (int i = 0; i < 4; ++i) t.run("out: A");
  t.run("advance 150ms\nquiet");
}
TEST_F(TcpSend, zero_window_and_a_silent_peer_end_in_etimedout) {
  t.open_passive();
  t.run("in: A seq 1 ack 1 win 0\nsend 100\nadvance 1800s\ndrain\nstate CLOSED\nerror ETIMEDOUT");
}
TEST_F(TcpSend, a_window_that_shrinks_behind_what_was_sent_is_survived) {
  t.open_passive();
  t.run(
      "send 2920\nout: A len 1460\nout: A len 1460\nin: A seq 1 ack 1461 win 0\nsend 100\nquiet\nadvance 200ms\nout: A seq 1461 len 1460\nin: A seq "
      "1 ack 2921 win 1000\nout: A seq 2921 len 100");
}
TEST_F(TcpSend, partial_window_with_persist_is_sent_after_the_timeout) {
  t.open_passive();
  t.run("in: A seq 1 ack 1 win 100\nsend 500\nquiet\nadvance 200ms\nout: A seq 1 len 100");
}
TEST_F(TcpSend, segmentation_offload_sends_many_segments_at_once) {
  t.lower.segmentation_max = 65535;
  t.open_passive();
  t.run("send 20000\nout: A seq 1 len 14600 seg 1460\nquiet\nin: A seq 1 ack 14601\nout: A seq 14601 len 5400 seg 1460\nin: A seq 1 ack 20001");
  t.run("send 100\nout: A len 100 seg 0");
}
TEST_F(TcpSend, rfc5927_4_path_mtu_shrinks_and_data_are_sent_again) {
  t.open_passive();
  t.run("send 3000\nout: A seq 1 len 1460\nout: A seq 1461 len 1460\nout: A seq 2921 len 80");
  t.tcp->network_error({t.socket->local(), t.socket->remote()}, t.own_first + 90000, EMSGSIZE, 1000);
  t.run("quiet");
  t.tcp->network_error({t.socket->local(), t.socket->remote()}, t.own_first + 1, EMSGSIZE, 1000);
  t.run("out: A seq 1 len 960\nout: A seq 961 len 960\nout: A seq 1921 len 960\nout: A seq 2881 len 120\nquiet\nin: A seq 1 ack 3001\nquiet");
}
TEST_F(TcpSend, rfc1191_3_mtu_is_never_below_552) {
  t.open_passive();
  t.run("send 1000\nout: A len 1000");
  t.tcp->network_error({t.socket->local(), t.socket->remote()}, t.own_first + 1, EMSGSIZE, 68);
  t.run("out: A seq 1 len 512\nout: A seq 513 len 488");
}
TEST_F(TcpSend, rfc4821_a_black_hole_for_large_segments_is_found) {
  t.open_passive();
  t.run(
      "send 1460\nout: A len 1460\nadvance 200ms\nout: A len 1460\nadvance 400ms\nout: A len 1460\nadvance 800ms\nout: A len 1460\nadvance "
      "1600ms\nout: A seq 1 len 1240");
}
TEST_F(TcpSend, rfc9293_3_9_2_2_soft_icmp_errors_do_not_end_a_connection) {
  t.open_passive();
  t.run("send 100\nout: A len 100");
  t.tcp->network_error({t.socket->local(), t.socket->remote()}, t.own_first + 1, EHOSTUNREACH, 0);
  t.run("state ESTABLISHED\nadvance 1800s\ndrain\nstate CLOSED\nerror EHOSTUNREACH");
}
TEST_F(TcpSend, rfc9293_3_8_3_r2_ends_in_etimedout) {
  t.open_passive();
  t.run("send 100\nout: A len 100\nadvance 1800s\ndrain\nstate CLOSED\nevents IN|OUT|ERR|HUP|RDHUP\nerror ETIMEDOUT");
  EXPECT_EQ(t.tcp->statistics().timeouts, 15u);
}
TEST_F(TcpSend, user_timeout_ends_earlier) {
  t.open_passive();
  set([](Options& o) { o.user_timeout_ms = 3000; });
  t.run("send 100\nout: A len 100\nadvance 7s\ndrain\nstate CLOSED\nerror ETIMEDOUT");
}
TEST_F(TcpSend, buffer_is_full_then_writable_when_a_third_is_free) {
  t.open_passive();
  set([](Options& o) { o.send_buffer = 30000; });
  t.run("in: A seq 1 ack 1 win 0\nsend 30000\nevents 0");
  u8 byte = 1;
  vfs::IoSegment part = vfs::IoBuffer::kernel_segment(&byte, 1);
  vfs::IoBuffer more({&part, 1}, vfs::IoBuffer::Memory::kernel);
  EXPECT_EQ(t.socket->send(more, Socket::More::no).error().code(), EAGAIN);
  u32 calls = t.observer.calls;
  t.run("in: A seq 1 ack 1 win 65535\ndrain\nin: A seq 1 ack 7301\ndrain\nevents 0");
  EXPECT_EQ(t.observer.calls, calls);
  t.run("in: A seq 1 ack 13141\ndrain\nevents OUT");
  EXPECT_EQ(t.observer.last, u32{kWritable});
}
TEST_F(TcpSend, not_sent_low_water) {
  t.open_passive();
  set([](Options& o) { o.not_sent_low_water = 1000; });
  t.run("in: A seq 1 ack 1 win 0\nsend 999\nevents OUT\nsend 10\nevents 0\nin: A seq 1 ack 1 win 65535\nout: A len 1009\nevents OUT");
}
TEST_F(TcpSend, after_shutdown_of_writing_send_gives_epipe) {
  t.open_passive();
  t.run("shutdown 1\nout: FA");
  vfs::IoBuffer nothing({}, vfs::IoBuffer::Memory::kernel);
  EXPECT_EQ(t.socket->send(nothing, Socket::More::no).error().code(), EPIPE);
}
TEST_F(TcpSend, after_a_reset_econnreset_once_then_epipe) {
  t.open_passive();
  t.run("in: R seq 1");
  vfs::IoBuffer nothing({}, vfs::IoBuffer::Memory::kernel);
  EXPECT_EQ(t.socket->send(nothing, Socket::More::no).error().code(), ECONNRESET);
  EXPECT_EQ(t.socket->send(nothing, Socket::More::no).error().code(), EPIPE);
  t.run("recv eof");
}
TEST_F(TcpSend, rfc9293_3_8_4_keep_alive) {
  t.open_passive();
  set([](Options& o) { o.keep_alive = true, o.keep_idle_s = 60, o.keep_interval_s = 10, o.keep_count = 3; });
  t.run(
      "advance 60s\nout: A seq 0 len 0\nin: A seq 1 ack 1\nquiet\nadvance 59s\nquiet\nadvance 1s\nout: A seq 0\nadvance 10s\nout: A seq 0\nadvance "
      "10s\nout: A seq 0\nadvance 10s\nout: RA seq 1\nstate CLOSED\nerror ETIMEDOUT");
}
TEST_F(TcpSend, rfc9293_3_8_4_what_is_not_acceptable_is_no_sign_of_life) {
  t.open_passive();
  set([](Options& o) { o.keep_alive = true, o.keep_idle_s = 60, o.keep_interval_s = 10, o.keep_count = 3; });
  t.run(
      "advance 50s\nin: A seq 2000000 ack 1\ndrain\nin: A seq 1 ack 500000\ndrain\nin: R seq 77\ndrain\nin: S seq 9\ndrain\nadvance "
      "9s\nquiet\nadvance 1s\nout: A seq 0 len 0");
}
TEST_F(TcpSend, without_keep_alive_an_idle_connection_has_no_deadline) {
  t.open_passive();
  t.run("send 10\nout: A\nin: A seq 1 ack 11\nadvance 1s");
  EXPECT_EQ(t.tcp->next_deadline_ns(), ~u64{0});
}
TEST_F(TcpSend, rfc5681_4_1_window_restarts_after_idling) {
  t.open_passive();
  t.run("send 14600\ndrain\nin: A seq 1 ack 14601\nsend 29200\ndrain\nin: A seq 1 ack 43801\nadvance 2s\nsend 40000");
  for (int i = 0; i < 10; ++i) t.run("out: A len 1460");
  t.run("quiet");
}

}  // namespace
}  // namespace husk::net::tcp::test
