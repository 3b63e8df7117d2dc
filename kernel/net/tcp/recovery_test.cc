// Loss: RFC 5681, RFC 6582, RFC 2018, RFC 6675, RFC 3042, RFC 6298, RFC 3522.
#include "kernel/net/tcp/script_test.h"

namespace husk::net::tcp::test {
namespace {

struct TcpRecovery : ::testing::Test {
  Script t;
  // Ten segments are in flight, the window is full.
  void open(const std::string& options = "mss 1460") {
    t.open_passive(options);
    t.run("send 40000");
    for (int i = 0; i < 10; ++i) t.run("out: A len 1460");
    t.run("quiet");
  }
};

TEST_F(TcpRecovery, rfc3042_limited_transmit_on_the_first_two_duplicates) {
  open();
  t.run("in: A seq 1 ack 1\nout: A seq 14601 len 1460\nin: A seq 1 ack 1\nout: A seq 16061 len 1460\nquiet");
}
TEST_F(TcpRecovery, rfc6582_3_2_fast_retransmit_on_the_third_duplicate) {
  open();
  t.run("in: A seq 1 ack 1\nout: A\nin: A seq 1 ack 1\nout: A\nin: A seq 1 ack 1\nout: A seq 1 len 1460\nquiet");
  EXPECT_EQ(t.tcp->statistics().fast_retransmits, 1u);
  EXPECT_EQ(t.socket->information().slow_start_threshold, 6u);  // half of 12 in flight
}
TEST_F(TcpRecovery, rfc6582_3_2_a_partial_ack_retransmits_the_next) {
  open();
  t.run(
      "in: A seq 1 ack 1\ndrain\nin: A seq 1 ack 1\ndrain\nin: A seq 1 ack 1\nout: A seq 1 len 1460\nin: A seq 1 ack 4381\nout: A seq 4381 len 1460");
  t.run("drain\nin: A seq 1 ack 17521\ndrain\nstate ESTABLISHED");
}
TEST_F(TcpRecovery, duplicates_with_data_or_new_window_do_not_count) {
  open();
  t.run(
      "in: A seq 1 ack 1 len 10\ndrain\nin: A seq 11 ack 1 len 10\ndrain\nin: A seq 21 ack 1 win 60000\nin: A seq 21 ack 1 win 59000\nin: A seq 21 "
      "ack 1 "
      "win 58000\nquiet");
}
TEST_F(TcpRecovery, rfc2018_4_sack_repairs_exactly_what_is_missing) {
  open("mss 1460 sackok");
  t.run(R"(
    in: A seq 1 ack 1 sack 1461-2921
    out: A seq 14601 len 1460
    in: A seq 1 ack 1 sack 1461-4381
    out: A seq 16061 len 1460
    in: A seq 1 ack 1 sack 1461-5841
    out: A seq 1 len 1460
    quiet
    in: A seq 1 ack 1 sack 1461-5841 sack 7301-8761
    quiet
    in: A seq 1 ack 1 sack 1461-5841 sack 7301-13141
    out: A seq 5841 len 1460
  )");
}
TEST_F(TcpRecovery, rfc6675_4_is_lost_by_bytes_above) {
  open("mss 1460 sackok");
  t.run("in: A seq 1 ack 1 sack 4381-8761\nout: A seq 1 len 1460\ndrain");
  EXPECT_EQ(t.tcp->statistics().fast_retransmits, 1u);
}
TEST_F(TcpRecovery, rfc6675_5_repeated_sack_without_news_is_no_duplicate) {
  open("mss 1460 sackok");
  t.run(
      "in: A seq 1 ack 1 sack 1461-2921\nout: A seq 14601\nin: A seq 1 ack 1 sack 1461-2921\nin: A seq 1 ack 1 sack 1461-2921\nin: A seq 1 ack 1 "
      "sack 1461-2921\nquiet");
}
TEST_F(TcpRecovery, sack_of_what_was_never_sent_or_is_long_acked_is_ignored) {
  open("mss 1460 sackok");
  t.run("in: A seq 1 ack 1 sack 20000-30000\nin: A seq 1 ack 1 sack 5000-4000\nquiet\nin: A seq 1 ack 1461 sack 1-1461\ndrain");
  EXPECT_EQ(t.socket->information().sacked, 0u);
}
TEST_F(TcpRecovery, rfc6675_recovery_ends_at_the_recovery_point) {
  open("mss 1460 sackok");
  t.run("in: A seq 1 ack 1 sack 1461-5841\nout: A seq 1 len 1460\ndrain\nin: A seq 1 ack 14601\ndrain");
  EXPECT_EQ(t.socket->information().congestion_window, 5u);
}
TEST_F(TcpRecovery, rfc6298_5_timeout_sends_one_segment_and_slow_starts) {
  open();
  t.run(
      "advance 200ms\nout: A seq 1 len 1460\nquiet\nin: A seq 1 ack 1461\nout: A seq 1461 len 1460\nout: A seq 2921 len 1460\nquiet\nin: A seq 1 ack "
      "14601\ndrain");
  EXPECT_EQ(t.socket->information().slow_start_threshold, 5u);
}
TEST_F(TcpRecovery, after_a_timeout_what_the_peer_holds_is_not_sent_again) {
  open("mss 1460 sackok");
  t.run(
      "in: A seq 1 ack 1 sack 2921-4381\nout: A seq 14601\nadvance 200ms\nout: A seq 1 len 1460\nin: A seq 1 ack 1461 sack 2921-4381\nout: A seq "
      "1461 len 1460\nout: A seq 4381 len 1460\nquiet");
}
TEST_F(TcpRecovery, rfc2018_8_a_peer_may_forget) {
  open("mss 1460 sackok");
  t.run("in: A seq 1 ack 1 sack 1461-14601\nout: A seq 1 len 1460\ndrain\nin: A seq 1 ack 1461\ndrain\nadvance 10s\nout: A seq 1461 len 1460");
  t.run("drain");
}
TEST_F(TcpRecovery, rfc6298_3_karn_nothing_is_measured_from_what_was_sent_twice) {
  t.open_passive();
  u32 before = t.socket->information().rtt_us;
  t.run("send 100\nout: A\nadvance 200ms\nout: A\nadvance 300ms\nin: A seq 1 ack 101");
  EXPECT_EQ(t.socket->information().rtt_us, before);
}
TEST_F(TcpRecovery, rfc6298_2_measurement) {
  t.open_passive();
  t.run("send 100\nout: A\nadvance 80ms\nin: A seq 1 ack 101");
  EXPECT_NEAR(t.socket->information().rtt_us, 10000, 2000);  // the handshake measured 0... the first sample counts
}
TEST_F(TcpRecovery, rfc6298_5_7_lost_syn_acks_cost_the_initial_window_and_start_with_3_s) {
  t.run("listen\nin: S seq 0 mss 1460\nout: SA\nadvance 1s\nout: SA\nadvance 2s\nout: SA\nin: A seq 1 ack 1\naccept");
  EXPECT_EQ(t.socket->information().rto_us, 3'000'000u);
  t.run("send 20000\nout: A seq 1 len 1460\nquiet");
}
TEST_F(TcpRecovery, rfc6298_3_a_syn_ack_that_was_sent_twice_is_not_measured) {
  t.run("listen\nin: S seq 0 mss 1460\nout: SA\nadvance 900ms\nin: S seq 0 mss 1460\nout: SA\nadvance 10ms\nin: A seq 1 ack 1\naccept");
  EXPECT_EQ(t.socket->information().rtt_us, 0u);
}
// Else a round trip that grows beyond the timeout is never measured, and everything is sent twice for ever.
TEST_F(TcpRecovery, rfc6298_5_backoff_ends_with_a_measurement) {
  t.open_passive();
  t.run(R"(
    send 100
    out: A
    advance 200ms
    out: A
    advance 400ms
    out: A
    in: A seq 1 ack 101
    send 100
    out: A seq 101
    advance 790ms
    quiet
    in: A seq 1 ack 201
  )");
  u32 after = t.socket->information().rto_us;
  EXPECT_LT(after, 4'000'000u);
  EXPECT_GT(after, 790'000u);
}
TEST_F(TcpRecovery, rfc6298_5_a_round_trip_that_grows_is_measured_in_the_end) {
  t.open_passive();
  for (int i = 0; i < 20; ++i) {
    u32 end = 1 + 100 * static_cast<u32>(i + 1);
    t.run("send 100\nout: A\nadvance 500ms\ndrain\nin: A seq 1 ack " + std::to_string(end));
  }
  EXPECT_LT(t.tcp->statistics().timeouts, 4u);
}
TEST_F(TcpRecovery, without_sack_a_loss_is_found_2_gib_after_the_last) {
  t.lower.segmentation_max = 65535;
  t.open_passive("mss 1460 scale 8");
  t.run("send 14600\ndrain\nin: A seq 1 ack 1\nin: A seq 1 ack 1\nin: A seq 1 ack 1\ndrain\nin: A seq 1 ack 14601\ndrain");
  EXPECT_EQ(t.tcp->statistics().fast_retransmits, 1u);
  u32 at = 14601;
  std::vector<u8> data(600'000);
  Segment ack;
  ack.seq = t.peer_first + 1;
  ack.flags = kAck;
  ack.window = 65535;
  auto acknowledge_all = [&] {
    t.tcp->run();
    for (auto& sent : t.lower.sent) at += sent.segment.payload_size;
    t.lower.sent.clear();
    ack.ack = t.own_first + at;
    t.tcp->input({t.local, t.remote}, ack, nullptr, 1);
  };
  while (at < (1u << 31) + (50u << 20)) {
    vfs::IoSegment part = vfs::IoBuffer::kernel_segment(data.data(), data.size());
    vfs::IoBuffer from({&part, 1}, vfs::IoBuffer::Memory::kernel);
    (void)t.socket->send(from, Socket::More::no).ok();
    acknowledge_all();
  }
  while (t.socket->information().send_queue != 0) acknowledge_all();
  t.sent_bytes = at - 1;
  std::string same = "in: A seq 1 ack " + std::to_string(at) + "\n";
  t.run("send 14600\ndrain\n" + same + "drain\n" + same + "drain\n" + same + "drain");
  EXPECT_EQ(t.tcp->statistics().fast_retransmits, 2u);
}
TEST_F(TcpRecovery, rfc3522_a_spurious_timeout_is_undone) {
  t.open_passive("mss 1460 ts 1 0");
  t.run("send 14480");
  for (int i = 0; i < 10; ++i) t.run("out: A len 1448");
  u32 value = t.last_sent.timestamp_value;
  t.run("advance 200ms\nout: A seq 1 len 1448\nin: A seq 1 ack 1449 ts 2 " + std::to_string(value) + "\nquiet");
  EXPECT_GE(t.socket->information().congestion_window, 10u);
  EXPECT_EQ(t.socket->information().slow_start_threshold, 0x7fffffffu);
}
TEST_F(TcpRecovery, rfc6582_6_duplicates_of_retransmissions_after_a_timeout_start_no_recovery) {
  open();
  t.run(
      "advance 200ms\nout: A seq 1\nin: A seq 1 ack 1461\ndrain\nin: A seq 1 ack 1461\nin: A seq 1 ack 1461\nin: A seq 1 ack 1461\nin: A seq 1 ack "
      "1461");
  t.run("drain");
  EXPECT_EQ(t.tcp->statistics().fast_retransmits, 0u);
}
TEST_F(TcpRecovery, retransmissions_with_offload_go_segment_by_segment) {
  t.lower.segmentation_max = 65535;
  t.open_passive("mss 1460 sackok");
  t.run("send 14600\nout: A len 14600 seg 1460\nin: A seq 1 ack 1 sack 4381-14601\nout: A seq 1 len 1460 seg 0");
  t.run("drain");
}
TEST_F(TcpRecovery, rfc5681_3_1_congestion_avoidance_adds_a_segment_each_round_trip) {
  open("mss 1460 sackok");
  t.run("in: A seq 1 ack 1 sack 1461-5841\ndrain\nin: A seq 1 ack 14601\ndrain");
  u32 before = t.socket->information().congestion_window;
  t.run("send 20000\ndrain");
  u32 acked = 14601;
  for (int i = 0; i < 6; ++i) t.run("in: A seq 1 ack " + std::to_string(acked += 1460) + "\ndrain");
  EXPECT_EQ(t.socket->information().congestion_window, before + 1);
}

}  // namespace
}  // namespace husk::net::tcp::test
