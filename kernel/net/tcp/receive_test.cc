// Receiving: acknowledgements (RFC 1122 §4.2.3.2, RFC 5681 §4.2), reassembly and SACK (RFC 2018, RFC 2883), windows (RFC 9293 §3.8.6), memory.
#include "kernel/net/tcp/script_test.h"

namespace husk::net::tcp::test {
namespace {

struct TcpReceive : ::testing::Test {
  Script t;
  // Quick acknowledgements are over.
  void open_delaying(const std::string& options = "mss 1460") {
    t.open_passive(options);
    Options set = t.options();
    set.quick_ack = false;
    t.set(set);
  }
};

TEST_F(TcpReceive, quick_acks_at_the_start) {
  t.open_passive();
  t.run("in: A seq 1 ack 1 len 10\nout: A ack 11\nin: A seq 11 ack 1 len 10\nout: A ack 21");
}
TEST_F(TcpReceive, quick_acks_end_after_16) {
  t.open_passive();
  for (int i = 0; i < 16; ++i) t.run("in: A seq " + std::to_string(1 + i * 10) + " ack 1 len 10\nout: A\nrecv 10");
  t.run("in: A seq 161 ack 1 len 10\nquiet\nadvance 40ms\nout: A ack 171");
}
TEST_F(TcpReceive, rfc1122_4_2_3_2_ack_is_delayed) {
  open_delaying();
  t.run("in: A seq 1 ack 1 len 10\nquiet\nadvance 39ms\nquiet\nadvance 1ms\nout: A seq 1 ack 11 len 0\nquiet");
}
TEST_F(TcpReceive, rfc1122_4_2_3_2_at_least_every_second_full_segment) {
  open_delaying();
  t.run("in: A seq 1 ack 1 len 1460\nquiet\nin: A seq 1461 ack 1 len 1460\nout: A ack 2921\nin: A seq 2921 ack 1 len 1460\nquiet");
}
TEST_F(TcpReceive, merged_segments_count_each) {
  open_delaying();
  t.run("in: A seq 1 ack 1 len 2920 pieces 2\nout: A ack 2921\nquiet");
}
TEST_F(TcpReceive, psh_is_no_reason_to_hurry) {
  open_delaying();
  t.run("in: PA seq 1 ack 1 len 100\nquiet");
}
TEST_F(TcpReceive, a_reply_carries_the_ack_and_makes_the_connection_interactive) {
  t.open_passive();
  Segment request;
  request.seq = t.peer_first + 1;
  request.ack = t.own_first + 1;
  request.flags = kAck;
  request.window = 65535;
  request.payload_size = 10;
  t.tcp->input({t.local, t.remote}, request, make_payload(1, 10), 1);
  u8 reply[5];
  for (u32 i = 0; i < 5; ++i) reply[i] = byte_at(1 + i);
  vfs::IoSegment part = vfs::IoBuffer::kernel_segment(reply, 5);
  vfs::IoBuffer from({&part, 1}, vfs::IoBuffer::Memory::kernel);
  ASSERT_TRUE(t.socket->send(from, Socket::More::no).ok());
  t.run("out: A seq 1 ack 11 len 5\nquiet\nin: A seq 11 ack 6 len 10\nquiet\nadvance 40ms\nout: A ack 21");
}
TEST_F(TcpReceive, rfc5681_4_2_a_gap_is_reported_by_itself_beside_data) {
  t.open_passive("mss 1460 sackok");
  t.run("send 60000");
  for (int i = 0; i < 10; ++i) t.run("out: A len 1460");
  t.run("quiet\nin: A seq 101 ack 1461 len 100\nout: A len 0 ack 1 sack 101-201\nout: A len 1460\ndrain");
}
TEST_F(TcpReceive, rfc5681_4_2_out_of_order_is_acked_at_once_and_so_is_what_fills_a_gap) {
  open_delaying();
  t.run(
      "in: A seq 101 ack 1 len 100\nout: A ack 1\nin: A seq 301 ack 1 len 100\nout: A ack 1\nin: A seq 1 ack 1 len 100\nout: A ack 201\nin: A seq "
      "201 ack 1 len 100\nout: A ack 401\nrecv 400");
}
TEST_F(TcpReceive, rfc2018_4_the_first_block_is_the_most_recent) {
  t.open_passive("mss 1460 sackok");
  t.run(R"(
    in: A seq 101 ack 1 len 100
    out: A ack 1 sack 101-201
    in: A seq 301 ack 1 len 100
    out: A ack 1 sack 301-401 sack 101-201
    in: A seq 501 ack 1 len 100
    out: A ack 1 sack 501-601 sack 301-401 sack 101-201
    in: A seq 701 ack 1 len 100
    out: A ack 1 sack 701-801 sack 501-601 sack 301-401 sack 101-201
    in: A seq 901 ack 1 len 100
    out: A ack 1 sack 901-1001 sack 701-801 sack 501-601 sack 301-401
    in: A seq 201 ack 1 len 100
    out: A ack 1 sack 101-401 sack 901-1001 sack 701-801 sack 501-601
    in: A seq 1 ack 1 len 100
    out: A ack 401 sack 901-1001 sack 701-801 sack 501-601
    in: A seq 401 ack 1 len 500
    out: A ack 1001
    recv 1000
  )");
}
TEST_F(TcpReceive, rfc2018_3_three_blocks_beside_timestamps) {
  t.run("listen\nin: S seq 0 mss 1460 sackok ts 1 0\nout: SA\nin: A seq 1 ack 1 ts 1 0\naccept");
  for (int i = 1; i < 5; ++i) t.run("in: A seq " + std::to_string(i * 200 + 1) + " ack 1 len 100 ts 1 0\nout: A");
  EXPECT_EQ(t.last_sent.sack_count, 3);
}
TEST_F(TcpReceive, rfc2018_4_every_block_of_a_batch_is_reported) {
  t.open_passive("mss 1460 sackok");
  for (u32 place : {101, 301, 501, 701, 801, 901}) {
    Segment segment;
    segment.seq = t.peer_first + place;
    segment.ack = t.own_first + 1;
    segment.flags = kAck;
    segment.window = 65535;
    segment.payload_size = place == 801 ? 50 : 100;
    t.tcp->input({t.local, t.remote}, segment, make_payload(place, segment.payload_size), 1);
  }
  t.run(
      "out: A ack 1 sack 301-401 sack 101-201\nout: A ack 1 sack 701-801 sack 501-601 sack 301-401 sack 101-201\nout: A ack 1 sack 901-1001 sack "
      "701-851 sack 501-601 sack 301-401\nquiet");
}
TEST_F(TcpReceive, rfc2883_4_duplicates_are_reported_once) {
  t.open_passive("mss 1460 sackok");
  t.run(
      "in: A seq 1 ack 1 len 100\nout: A ack 101\nin: A seq 1 ack 1 len 100\nout: A ack 101 sack 1-101\nin: A seq 301 ack 1 len 100\nout: A ack 101 "
      "sack 301-401\nin: A seq 301 ack 1 len 100\nout: A ack 101 sack 301-401 sack 301-401");
}
TEST_F(TcpReceive, rfc9293_3_10_7_4_overlaps_are_trimmed) {
  t.open_passive("mss 1460 sackok");
  t.run(
      "in: A seq 1 ack 1 len 100\ndrain\nin: A seq 51 ack 1 len 100\ndrain\nin: A seq 301 ack 1 len 100\ndrain\nin: A seq 251 ack 1 len "
      "100\ndrain\nin: A seq 351 ack 1 len 100\ndrain\nin: A seq 201 ack 1 len 300\ndrain\nin: A seq 151 ack 1 len 600\nout: A ack 751\nrecv 750");
}
TEST_F(TcpReceive, reassembly_is_bounded) {
  t.open_passive("mss 1460");
  for (int i = 1; i < 200; ++i) t.run("in: A seq " + std::to_string(i * 10 + 1) + " ack 1 len 5\ndrain");
  EXPECT_LT(t.tcp->statistics().memory_used, 129 * 6000u);
  t.run("in: A seq 1 ack 1 len 10\nout: A ack 16");
}
TEST_F(TcpReceive, rfc9293_3_8_6_window_follows_what_is_unread_and_opens_again) {
  t.run("listen");
  Options options = t.listener->options();
  options.receive_buffer = 10000;
  t.listener->set_options(options);
  t.run(
      "in: S seq 0 mss 1460\nout: SA win 10000\nin: A seq 1 ack 1\naccept\nin: A seq 1 ack 1 len 6000\nout: A ack 6001 win 4000\nin: A seq 6001 ack "
      "1 len 4000\nout: A ack 10001 win 0");
  t.run("in: A seq 10001 ack 1 len 1\nout: A ack 10001 win 0\nrecv 10000\nout: A ack 10001 win 10000");
}
TEST_F(TcpReceive, rfc9293_3_8_6_2_2_receiver_avoids_silly_windows) {
  t.run("listen");
  Options options = t.listener->options();
  options.receive_buffer = 10000;
  t.listener->set_options(options);
  t.run("in: S seq 0 mss 1460\nout: SA\nin: A seq 1 ack 1\naccept\nin: A seq 1 ack 1 len 10000\nout: A win 0");
  EXPECT_EQ(*t.socket->discard(1000), 1000u);
  t.run("quiet");
  EXPECT_EQ(*t.socket->discard(1000), 1000u);
  t.run("out: A win 2000");
}
TEST_F(TcpReceive, data_beyond_the_window_are_cut) {
  t.run("listen");
  Options options = t.listener->options();
  options.receive_buffer = 1000;
  t.listener->set_options(options);
  t.run(
      "in: S seq 0 mss 1460\nout: SA win 1000\nin: A seq 1 ack 1\naccept\nin: FA seq 1 ack 1 len 1200\nout: A ack 1001 win 0\nstate "
      "ESTABLISHED\nrecv 1000");
  t.run("drain");
}
TEST_F(TcpReceive, window_grows_while_the_program_keeps_up) {
  t.open_passive("mss 1460 scale 7");
  u32 at = 1;
  for (int i = 0; i < 300; ++i) {
    t.run("in: A seq " + std::to_string(at) + " ack 1 len 1460 win 1000\ndrain\nrecv 1460\ndrain");
    at += 1460;
  }
  EXPECT_GT(t.socket->information().receive_window, 100'000u);
}
TEST_F(TcpReceive, small_payloads_do_not_pin_large_buffers) {
  t.open_passive();
  for (u32 i = 0; i < 500; ++i) {
    Segment segment;
    segment.seq = t.peer_first + (1 + i * 10);
    segment.ack = t.own_first + 1;
    segment.flags = kAck;
    segment.window = 65535;
    segment.payload_size = 10;
    t.tcp->input({t.local, t.remote}, segment, make_payload(1 + i * 10, 10, 4000), 1);
    t.tcp->run();
  }
  EXPECT_LT(t.tcp->statistics().memory_used, 20'000u);
  t.run("drain\nrecv 5000");
  EXPECT_EQ(t.tcp->statistics().memory_used, 0u);
}
TEST_F(TcpReceive, peek_leaves_the_bytes) {
  t.open_passive();
  t.run("in: A seq 1 ack 1 len 10\nout: A");
  u8 bytes[4];
  vfs::IoSegment part = vfs::IoBuffer::kernel_segment(bytes, 4);
  vfs::IoBuffer to({&part, 1}, vfs::IoBuffer::Memory::kernel);
  EXPECT_EQ(*t.socket->receive(to, Socket::Peek::yes), 4u);
  EXPECT_EQ(t.socket->readable_bytes(), 10u);
  t.run("recv 10\nrecv EAGAIN");
}
TEST_F(TcpReceive, each_arrival_is_told) {
  t.open_passive();
  u32 calls = t.observer.calls;
  t.run("in: A seq 1 ack 1 len 10\nout: A");
  EXPECT_EQ(t.observer.calls, calls + 1);
  EXPECT_EQ(t.observer.last, u32{kReadable | kWritable});
  t.run("in: A seq 11 ack 1 len 10\nout: A");
  EXPECT_EQ(t.observer.calls, calls + 2);
}
TEST_F(TcpReceive, after_a_reset_data_are_read_first_then_the_error_then_the_end) {
  t.open_passive();
  t.run("in: A seq 1 ack 1 len 10\nout: A\nin: R seq 11\nevents IN|OUT|ERR|HUP|RDHUP\nrecv 10\nrecv ECONNRESET\nrecv eof");
}
// On the loopback a few bytes may hold a large buffer of their sender.
TEST_F(TcpReceive, an_empty_connection_takes_the_beginning_of_what_costs_too_much) {
  Tcp::Limits limits;
  limits.memory = 16 * kKiB;
  Script u(limits);
  u.open_passive();
  Segment segment;
  segment.seq = u.peer_first + 1;
  segment.ack = u.own_first + 1;
  segment.flags = kAck | kFin;
  segment.window = 65535;
  segment.payload_size = 5000;
  u.tcp->input({u.local, u.remote}, segment, make_payload(1, 5000, 32 * kKiB), 1);
  u.run("out: A ack 4097\nrecv 4096\ndrain\nin: FA seq 4097 ack 1 len 904\nout: A ack 5002\nrecv 904\nrecv eof");
}
TEST_F(TcpReceive, memory_above_the_limit_closes_windows_and_refuses_connections) {
  Tcp::Limits limits;
  limits.memory = 64 * kKiB;
  Script u(limits);
  u.open_passive();
  u.run("in: A seq 1 ack 1 len 40000\nout: A");
  EXPECT_LT(u.last_sent.window, 26000);
  u.run("in: A seq 40001 ack 1 len 20000\ndrain\nin: A seq 60001 ack 1 len 5000\ndrain");
  EXPECT_LE(u.tcp->statistics().memory_used, 80 * kKiB);
  u.socket->close();
  u.run("drain");
  EXPECT_EQ(u.tcp->statistics().memory_used, 0u);
}

}  // namespace
}  // namespace husk::net::tcp::test
