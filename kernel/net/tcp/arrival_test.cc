// RFC 9293 §3.10.7: a segment arrives, state by state; RFC 5961 (blind attacks); RFC 7323 (timestamps, PAWS).
#include "kernel/net/tcp/script_test.h"

namespace husk::net::tcp::test {
namespace {

// --- CLOSED -------------------------------------------------------------------------------------------------------------------------

TEST(TcpArrival, rfc9293_3_10_7_1_closed_answers_ack_with_rst_of_its_number) {
  Script t;
  t.run("in: A seq 7 ack 99\nout: R seq 99\nquiet");
}
TEST(TcpArrival, rfc9293_3_10_7_1_closed_answers_syn_with_rst_ack) {
  Script t;
  t.run("in: S seq 7\nout: RA seq 0 ack 8\nin: SF seq 7 len 10\nout: RA ack 19\nquiet");
}
TEST(TcpArrival, rfc9293_3_10_7_1_closed_is_silent_to_rst) {
  Script t;
  t.run("in: R seq 7\nin: RA seq 7 ack 1\nquiet");
}
TEST(TcpArrival, resets_are_limited_in_number) {
  Script t;
  Segment syn;
  syn.flags = kSyn;
  for (int i = 0; i < 2000; ++i) t.tcp->input({t.local, t.remote}, syn, nullptr, 1);
  EXPECT_EQ(t.lower.sent.size(), 1000u);
  t.lower.sent.clear();
}

// --- LISTEN -------------------------------------------------------------------------------------------------------------------------

TEST(TcpArrival, rfc9293_3_10_7_2_listen_ignores_rst_answers_ack_with_rst_and_syn_with_syn_ack) {
  Script t;
  t.run(R"(
    listen
    in: R seq 0
    in: RA seq 0 ack 5
    in: F seq 0
    in: A seq 0 ack 77
    out: R seq 77
    in: SA seq 0 ack 77
    out: R seq 77
    in: S seq 0 mss 1000 win 5000
    out: SA seq 0 ack 1 mss 1460
    quiet
  )");
}
TEST(TcpArrival, rfc7323_2_options_are_only_used_if_the_syn_had_them) {
  Script t;
  t.run("listen\nin: S seq 0\nout: SA");
  EXPECT_EQ(t.last_sent.window_scale, -1);
  EXPECT_FALSE(t.last_sent.sack_permitted);
  EXPECT_FALSE(t.last_sent.has_timestamps);
  Script u;
  u.run("listen\nin: S seq 0 mss 1460 scale 7 sackok ts 9 0\nout: SA scale 7 sackok");
  EXPECT_TRUE(u.last_sent.has_timestamps);
  EXPECT_EQ(u.last_sent.timestamp_echo, 9u);
}

// --- SYN-RECEIVED ---------------------------------------------------------------------------------------------------------------------

struct SynReceived : ::testing::Test {
  SynReceived() { t.run("listen\nin: S seq 0 mss 1460 win 1000\nout: SA seq 0 ack 1"); }
  Script t;
};
TEST_F(SynReceived, syn_again_is_answered_again) { t.run("in: S seq 0 mss 1460\nout: SA seq 0 ack 1\nquiet"); }
TEST_F(SynReceived, rfc6298_2_syn_ack_is_repeated_and_given_up) {
  t.run("advance 40s\nout: SA\nout: SA\nout: SA\nout: SA\nout: SA\nadvance 40s\nquiet\nin: A seq 1 ack 1\nout: R seq 1");
  EXPECT_EQ(t.tcp->statistics().attempt_fails, 1u);
}
TEST_F(SynReceived, rfc9293_3_10_7_4_wrong_ack_gets_rst) { t.run("in: A seq 1 ack 2\nout: R seq 2\nquiet"); }
TEST_F(SynReceived, rfc9293_3_10_7_4_rst_returns_to_listen) { t.run("in: R seq 1\nquiet\nin: A seq 1 ack 1\nout: R seq 1\nin: S seq 0\nout: SA"); }
TEST_F(SynReceived, rfc5961_3_2_rst_elsewhere_in_window_is_challenged) { t.run("in: R seq 2\nout: A seq 1 ack 1\nin: R seq 4000000000\nquiet"); }
TEST_F(SynReceived, segment_outside_window_is_answered_with_ack) { t.run("in: A seq 100000 ack 1 len 1\nout: A seq 1 ack 1\nquiet"); }
TEST_F(SynReceived, data_with_the_handshakes_ack_are_delivered) { t.run("in: A seq 1 ack 1 len 50 win 1000\nout: A ack 51\naccept\nrecv 50"); }
TEST_F(SynReceived, fin_with_the_handshakes_ack) { t.run("in: FA seq 1 ack 1 win 1000\nout: A ack 2\naccept\nstate CLOSE_WAIT\nrecv eof"); }

// --- SYN-SENT -------------------------------------------------------------------------------------------------------------------------

struct SynSent : ::testing::Test {
  SynSent() { t.run("connect\nout: S seq 0 mss 1460\nstate SYN_SENT\nevents 0"); }
  Script t;
};
TEST_F(SynSent, rfc9293_3_10_7_3_unacceptable_ack_gets_rst) {
  t.run("in: A seq 5 ack 7\nout: R seq 7\nin: SA seq 0 ack 0\nout: R seq 0\nstate SYN_SENT");
}
TEST_F(SynSent, rfc9293_3_10_7_3_rst_with_ack_refuses) {
  t.run("in: RA seq 0 ack 1\nquiet\nstate CLOSED\nevents IN|OUT|ERR|HUP|RDHUP\nerror ECONNREFUSED\nerror 0");
}
TEST_F(SynSent, rfc9293_3_10_7_3_rst_without_or_with_wrong_ack_is_ignored) { t.run("in: R seq 0\nin: RA seq 0 ack 9\nquiet\nstate SYN_SENT"); }
TEST_F(SynSent, fin_is_ignored) { t.run("in: F seq 0\nquiet\nstate SYN_SENT"); }
TEST_F(SynSent, data_with_syn_ack_are_kept) { t.run("in: SA seq 0 ack 1 len 30 win 1000\nout: A seq 1 ack 31\nrecv 30"); }
TEST_F(SynSent, rfc9293_3_5_simultaneous_open) {
  t.run(R"(
    in: S seq 0 mss 1460 win 5000
    out: SA seq 0 ack 1
    state SYN_RECEIVED
    in: SA seq 0 ack 1 win 5000
    out: A seq 1 ack 1
    state ESTABLISHED
    send 10
    out: A len 10
  )");
}
TEST_F(SynSent, rfc9293_3_10_4_close_in_syn_received_waits_for_established) {
  t.run(
      "in: S seq 0 win 5000\nout: SA seq 0 ack 1\nclose\nquiet\nin: A seq 1 ack 1 win 5000\nout: FA seq 1 ack 1\nstate FIN_WAIT_1\nadvance 1s\nout: "
      "FA seq 1");
  t.run("drain");
}
TEST_F(SynSent, simultaneous_open_ended_by_rst) { t.run("in: S seq 0 win 5000\nout: SA seq 0 ack 1\nin: R seq 1\nstate CLOSED\nerror ECONNREFUSED"); }
TEST_F(SynSent, rfc6298_syn_is_repeated_then_etimedout) {
  t.run("advance 128s\nout: S\nout: S\nout: S\nout: S\nout: S\nout: S\nadvance 2s\nquiet\nstate CLOSED\nerror ETIMEDOUT");
}
TEST_F(SynSent, rfc6298_5_7_initial_window_is_one_segment_after_two_lost_syns) {
  t.run("advance 1s\nout: S\nadvance 2s\nout: S\nin: SA seq 0 ack 1 mss 1460 win 65535\nout: A\nsend 5000\nout: A len 1460\nquiet");
}
TEST_F(SynSent, icmp_error_ends_the_attempt) {
  t.tcp->network_error({t.socket->local(), t.socket->remote()}, t.own_first, EHOSTUNREACH, 0);
  t.run("state CLOSED\nerror EHOSTUNREACH");
}
TEST_F(SynSent, rfc5927_4_icmp_error_about_other_numbers_is_ignored) {
  t.tcp->network_error({t.socket->local(), t.socket->remote()}, t.own_first + 1, EHOSTUNREACH, 0);
  t.run("state SYN_SENT");
}
TEST_F(SynSent, close_forgets_it) { t.run("close\nstate CLOSED\nquiet\nin: SA seq 0 ack 1\nout: R seq 1"); }

// --- synchronised states ----------------------------------------------------------------------------------------------------------------

// How to get there from ESTABLISHED, what the peer's next number is then, and ours.
struct Situation {
  const char* state;
  const char* path;
  u32 peer_next, own_next;
  bool takes_data;
};
const Situation kSituations[] = {
    {"ESTABLISHED", "", 1, 1, true},
    {"FIN_WAIT_1", "shutdown 1\nout: FA seq 1 ack 1\n", 1, 2, true},
    {"FIN_WAIT_2", "shutdown 1\nout: FA seq 1 ack 1\nin: A seq 1 ack 2\n", 1, 2, true},
    {"CLOSE_WAIT", "in: FA seq 1 ack 1\nout: A seq 1 ack 2\n", 2, 1, false},
    {"CLOSING", "shutdown 1\nout: FA seq 1 ack 1\nin: FA seq 1 ack 1\nout: A seq 2 ack 2\n", 2, 2, false},
    {"LAST_ACK", "in: FA seq 1 ack 1\nout: A seq 1 ack 2\nshutdown 1\nout: FA seq 1 ack 2\n", 2, 2, false},
};
class InState : public ::testing::TestWithParam<Situation> {
 protected:
  void open() {
    t.open_passive();
    t.run(std::string(GetParam().path) + "state " + GetParam().state);
  }
  // `text` with P for the peer's next number, O for ours.
  void run(std::string text) {
    for (auto [letter, value] : {std::pair{'P', GetParam().peer_next}, {'O', GetParam().own_next}})
      for (size_t at; (at = text.find(std::string(" ") + letter)) != std::string::npos;) {
        size_t end = at + 2;
        i64 add = 0;
        if (end < text.size() && (text[end] == '+' || text[end] == '-')) add = std::stoll(text.substr(end)), end = text.find_first_of(" \n", end);
        text.replace(at + 1, (end == std::string::npos ? text.size() : end) - at - 1, std::to_string(value + add));
      }
    t.run(text);
  }
  Script t;
};
INSTANTIATE_TEST_SUITE_P(Each, InState, ::testing::ValuesIn(kSituations), [](const auto& parameter) { return std::string(parameter.param.state); });

TEST_P(InState, rfc9293_3_10_7_4_segment_outside_window_is_acked_and_dropped) {
  open();
  run("in: A seq P+100000 ack O len 10\nout: A seq O ack P\nquiet");
  t.run(std::string("state ") + GetParam().state);
}
TEST_P(InState, rfc9293_3_10_7_4_old_data_are_acked_and_dropped) {
  open();
  run("in: A seq P-1 ack O len 1\nout: A ack P\nquiet");
}
TEST_P(InState, rfc9293_3_10_7_4_rst_outside_window_is_dropped) {
  open();
  run("in: R seq P+70000\nin: R seq P-1\nquiet");
  t.run(std::string("state ") + GetParam().state);
}
TEST_P(InState, rfc5961_3_2_rst_in_window_but_not_next_is_challenged) {
  open();
  run("in: R seq P+1\nout: A seq O ack P\nquiet");
  t.run(std::string("state ") + GetParam().state);
}
TEST_P(InState, rfc9293_3_10_7_4_rst_that_is_next_closes) {
  open();
  run("in: R seq P\nquiet\nstate CLOSED");
  std::string state = GetParam().state;
  t.run(state == "CLOSING" || state == "LAST_ACK" ? "error 0" : state == "CLOSE_WAIT" ? "error EPIPE" : "error ECONNRESET");
}
TEST_P(InState, rfc5961_4_2_syn_is_challenged_whatever_its_number) {
  open();
  run("in: S seq P\nout: A seq O ack P\nquiet\nadvance 600ms\ndrain\nin: S seq P+9000\nout: A seq O ack P");
  t.run("drain");
}
TEST_P(InState, rfc5961_5_ack_of_what_was_never_sent_is_challenged) {
  open();
  run("in: A seq P ack O+1\nout: A seq O ack P\nquiet");
  t.run(std::string("state ") + GetParam().state);
}
TEST_P(InState, rfc5961_5_ack_that_is_far_too_old_is_challenged) {
  open();
  run("in: A seq P ack O-70000\nout: A seq O ack P\nquiet");
}
TEST_P(InState, rfc5961_7_challenges_are_limited_for_each_connection) {
  open();
  run("in: R seq P+1\nout: A\nin: R seq P+1\nin: S seq P\nin: R seq P+5\nquiet");
}
TEST_P(InState, rfc9293_3_10_7_4_segment_without_ack_is_dropped) {
  open();
  run("in: P seq P len 10\nquiet");
  EXPECT_EQ(t.socket->readable_bytes(), 0u);
}
TEST_P(InState, rfc9293_3_10_7_4_data_are_taken_until_the_peers_fin_and_ignored_after) {
  open();
  run(std::string("in: A seq P ack O len 10\n") + (GetParam().takes_data ? "out: A" : "quiet"));
  EXPECT_EQ(t.socket->readable_bytes(), GetParam().takes_data ? 10u : 0u);
  t.run("drain");
}
TEST_P(InState, rfc6093_urgent_data_are_ordinary_data) {
  if (!GetParam().takes_data) return;
  open();
  run("in: UA seq P ack O len 10\nout: A ack P+10\nrecv 10");
}
TEST_P(InState, rfc9293_3_8_4_keep_alive_probe_is_answered) {
  open();
  run("in: A seq P-1 ack O\nout: A seq O ack P\nquiet");
}
TEST_P(InState, rst_in_answer_to_close_with_linger_0) {
  open();
  Options options = t.options();
  options.linger = true;
  t.set(options);
  run("close\nout: RA seq O ack P\nquiet\nstate CLOSED");
}

// --- the ends -------------------------------------------------------------------------------------------------------------------------

TEST(TcpArrival, rfc5961_3_2_reset_with_text_from_before_the_next_number_is_challenged) {
  Script t;
  t.open_passive();
  t.run("in: A seq 1 ack 1 len 100\nout: A ack 101\nrecv 100\nin: R seq 51 ack 1 len 60\nout: A seq 1 ack 101\nstate ESTABLISHED");
}
TEST(TcpClosing, rfc9293_3_6_both_close_at_once) {
  Script t;
  t.open_passive();
  t.run("close\nout: FA seq 1 ack 1\nin: FA seq 1 ack 1\nout: A seq 2 ack 2\nstate CLOSING\nin: A seq 2 ack 2\nstate CLOSED\nquiet");
  EXPECT_EQ(t.tcp->statistics().time_wait, 1u);
}
TEST(TcpClosing, fin_and_ack_of_ours_in_one_segment) {
  Script t;
  t.open_passive();
  t.run("close\nout: FA seq 1 ack 1\nin: FA seq 1 ack 2\nout: A seq 2 ack 2\nquiet");
  EXPECT_EQ(t.tcp->statistics().time_wait, 1u);
}
TEST(TcpClosing, fin_with_data_in_one_segment) {
  Script t;
  t.open_passive();
  t.run("in: FA seq 1 ack 1 len 100\nout: A ack 102\nstate CLOSE_WAIT\nevents IN|OUT|RDHUP\nrecv 100\nrecv eof");
}
TEST(TcpClosing, fin_out_of_order_waits) {
  Script t;
  t.open_passive();
  t.run("in: FA seq 101 ack 1\nout: A ack 1\nstate ESTABLISHED\nin: A seq 1 ack 1 len 100\nout: A ack 102\nstate CLOSE_WAIT\nrecv 100\nrecv eof");
}
TEST(TcpClosing, fin_is_repeated_until_acknowledged) {
  Script t;
  t.open_passive();
  t.run("close\nout: FA seq 1\nadvance 200ms\nout: FA seq 1\nadvance 400ms\nout: FA seq 1\nin: A seq 1 ack 2\nquiet");
}
TEST(TcpClosing, fin_goes_with_the_last_data) {
  Script t;
  t.open_passive();
  t.run("send 2000 more\nout: A seq 1 len 1460\nshutdown 1\nout: FA seq 1461 len 540\nquiet");
}
TEST(TcpClosing, rfc1122_4_2_2_13_half_close_still_receives) {
  Script t;
  t.open_passive();
  t.run(
      "shutdown 1\nout: FA seq 1\nin: A seq 1 ack 2\nstate FIN_WAIT_2\nin: A seq 1 ack 2 len 100\nout: A ack 101\nrecv 100\nin: FA seq 101 ack "
      "2\nout: A ack 102\nrecv eof\nstate CLOSED\nrecv eof");
}
TEST(TcpClosing, rfc2525_2_17_close_with_unread_data_resets) {
  Script t;
  t.open_passive();
  t.run("in: A seq 1 ack 1 len 10\nout: A ack 11\nclose\nout: RA seq 1 ack 11\nquiet\nstate CLOSED");
}
TEST(TcpClosing, rfc1122_4_2_2_13_data_after_close_are_answered_with_rst) {
  Script t;
  t.open_passive();
  t.run("close\nout: FA seq 1\nin: A seq 1 ack 2\nin: A seq 1 ack 2 len 10\nout: RA seq 2\nquiet");
  EXPECT_EQ(t.tcp->statistics().time_wait, 0u);
}
TEST(TcpClosing, rfc1122_4_2_2_13_so_are_data_after_shutdown_of_both) {
  Script t;
  t.open_passive();
  t.run("shutdown 2\nout: FA seq 1\nin: A seq 1 ack 2\nin: A seq 1 ack 2 len 10\nout: RA seq 2\nquiet\nstate CLOSED");
  EXPECT_EQ(t.socket->take_error(), ECONNRESET);
}
TEST(TcpClosing, after_shutdown_of_reading_data_are_still_taken) {
  Script t;
  t.open_passive();
  t.run("shutdown 0\nin: A seq 1 ack 1 len 10\nout: A ack 11\nrecv 10\nrecv eof");
}
TEST(TcpClosing, fin_wait_2_without_owner_ends_after_a_minute) {
  Script t;
  t.open_passive();
  t.run("close\nout: FA seq 1\nin: A seq 1 ack 2\nadvance 61s\nquiet\nin: FA seq 1 ack 2\nout: R seq 2");
}
TEST(TcpClosing, peer_that_never_answers_the_fin_is_given_up) {
  Script t;
  t.open_passive();
  t.run("close\nout: FA seq 1\nadvance 300s");
  for (int i = 0; i < 8; ++i) t.run("out: FA seq 1");
  t.run("quiet\nstate CLOSED");
}

// --- TIME-WAIT ------------------------------------------------------------------------------------------------------------------------

struct TimeWaitState : ::testing::Test {
  void open(const std::string& options, const std::string& suffix = "") {
    t.open_passive(options);
    t.run("close\nout: FA seq 1\nin: FA seq 1 ack 2" + suffix + "\nout: A seq 2 ack 2");
    EXPECT_EQ(t.tcp->statistics().time_wait, 1u);
  }
  Script t;
};
TEST_F(TimeWaitState, rfc1337_rst_is_ignored) {
  open("mss 1460");
  t.run("in: R seq 2\nquiet");
  EXPECT_EQ(t.tcp->statistics().time_wait, 1u);
}
TEST_F(TimeWaitState, rfc9293_3_10_7_4_fin_again_is_acked_and_restarts_the_time) {
  open("mss 1460");
  t.run("advance 50s\nin: FA seq 1 ack 2\nout: A seq 2 ack 2\nadvance 50s\nquiet");
  EXPECT_EQ(t.tcp->statistics().time_wait, 1u);
  t.run("advance 10s");
  EXPECT_EQ(t.tcp->statistics().time_wait, 0u);
}
TEST_F(TimeWaitState, data_are_answered_with_ack) {
  open("mss 1460");
  t.run("in: A seq 2 ack 2 len 10\nout: A seq 2 ack 2\nin: A seq 2 ack 2\nquiet");
}
TEST_F(TimeWaitState, rfc1122_4_2_2_13_syn_with_greater_number_opens_again) {
  open("mss 1460");
  t.own_first_known = false;
  t.run("in: S seq 100000 mss 1460\nout: SA ack 100001");
  EXPECT_EQ(t.tcp->statistics().time_wait, 0u);
}
TEST_F(TimeWaitState, syn_with_smaller_number_is_answered_with_ack) {
  open("mss 1460");
  t.run("in: S seq 0 mss 1460\nout: A seq 2 ack 2");
}
TEST_F(TimeWaitState, rfc6191_2_syn_with_newer_timestamp_opens_again) {
  open("mss 1460 ts 1 0", " ts 5 0");
  t.own_first_known = false;
  t.run("in: S seq 0 mss 1460 ts 6 0\nout: SA ack 1");
}
TEST_F(TimeWaitState, rfc6191_2_syn_with_older_timestamp_is_answered_with_ack) {
  open("mss 1460 ts 10 0", " ts 15 0");
  t.run("in: S seq 100000 mss 1460 ts 12 0\nout: A seq 2 ack 2");
}
TEST(TcpTimeWait, is_bounded) {
  Tcp::Limits limits;
  limits.connections = 64;
  Script t(limits);
  t.run("listen");
  for (u16 port = 2000; port < 2050; ++port) {
    t.remote.port = port;
    t.own_first_known = false;
    t.run("in: S seq 0 mss 1460\nout: SA seq 0\nin: A seq 1 ack 1\naccept\nclose\nout: FA seq 1\nin: FA seq 1 ack 2\nout: A seq 2");
  }
  EXPECT_EQ(t.tcp->statistics().time_wait, 16u);
}

TEST(TcpTimeWait, rfc1122_4_2_2_13_the_next_connection_begins_above_the_last) {
  Script t;
  t.open_passive("mss 1460 scale 8");
  u32 at = 1;
  for (int i = 0; i < 200; ++i) {  // faster than the clock of initial numbers
    t.run("send 14600\ndrain");
    at += 14600;
    t.run("in: A seq 1 ack " + std::to_string(at) + "\ndrain");
  }
  t.run("close\nout: FA seq " + std::to_string(at) + "\nin: FA seq 1 ack " + std::to_string(at + 1) + "\nout: A");
  SeqNum end = t.own_first + (at + 1);
  t.run("in: S seq 100000 mss 1460\nout: SA");
  EXPECT_GT(t.last_sent.seq, end);
}
TEST(TcpTimeWait, a_syn_ends_it_only_if_somebody_listens) {
  Script t;
  t.open_passive();
  t.listener->close();
  t.run("close\nout: FA seq 1\nin: FA seq 1 ack 2\nout: A seq 2\nin: S seq 100000 mss 1460\nout: A seq 2 ack 2");
  EXPECT_EQ(t.tcp->statistics().time_wait, 1u);
}

// --- RFC 7323 ---------------------------------------------------------------------------------------------------------------------------

TEST(TcpTimestamps, rfc7323_5_3_paws) {
  Script t;
  t.run("listen\nin: S seq 0 mss 1460 ts 1000 0\nout: SA\nin: A seq 1 ack 1 ts 1001 0\naccept\nin: A seq 1 ack 1 len 10 ts 1005 0\nout: A ack 11");
  EXPECT_EQ(t.last_sent.timestamp_echo, 1005u);
  t.run("in: A seq 11 ack 1 len 10 ts 1004 0\nout: A ack 11\nquiet");
  EXPECT_EQ(t.tcp->statistics().paws_dropped, 1u);
  t.run("in: A seq 11 ack 1 len 10 ts 1005 0\nout: A ack 21");
  t.run("in: R seq 21 ts 1 0\nstate CLOSED");  // RFC 7323 §5.2: not for RST
}
TEST(TcpTimestamps, rfc7323_4_3_the_echo_is_of_the_segment_that_is_acknowledged) {
  Script t;
  t.run("listen\nin: S seq 0 mss 1460 ts 1000 0\nout: SA\nin: A seq 1 ack 1 ts 1001 0\naccept\nin: A seq 11 ack 1 len 10 ts 1009 0\nout: A ack 1");
  EXPECT_EQ(t.last_sent.timestamp_echo, 1001u);  // out of order
  t.run("in: A seq 1 ack 1 len 10 ts 1007 0\nout: A ack 21");
  EXPECT_EQ(t.last_sent.timestamp_echo, 1007u);
}
TEST(TcpTimestamps, rfc7323_5_5_timestamps_older_than_24_days_are_forgotten) {
  Script t;
  t.run("listen\nin: S seq 0 mss 1460 ts 1000 0\nout: SA\nin: A seq 1 ack 1 ts 1001 0\naccept");
  t.lower.now += u64{25} * 86400 * 1'000'000'000;
  t.run("in: A seq 1 ack 1 len 10 ts 7 0\nout: A ack 11\nrecv 10");
}
TEST(TcpTimestamps, rfc5961_5_a_forged_timestamp_does_not_stop_the_peer) {
  Script t;
  t.run("listen\nin: S seq 0 mss 1460 ts 1000 0\nout: SA\nin: A seq 1 ack 1 ts 1001 0\naccept");
  t.run("in: A seq 1 ack 100000 len 10 ts 1073741824 0\nout: A ack 1\nin: A seq 1 ack 1 len 100 ts 1002 0\nout: A ack 101\nrecv 100");
  EXPECT_EQ(t.tcp->statistics().paws_dropped, 0u);
}
TEST(TcpTimestamps, an_mss_smaller_than_the_options_does_not_wrap) {
  Script t;
  t.open_passive("mss 8 ts 50 0");
  t.run("send 100\nout: A len 64\ndrain");
}
TEST(TcpTimestamps, take_12_bytes_of_each_segment) {
  Script t;
  t.run("listen\nin: S seq 0 mss 1460 ts 1000 0\nout: SA\nin: A seq 1 ack 1 ts 1001 0\naccept\nsend 2000\nout: A len 1448\nout: A len 552");
}

// --- numbers wrap -------------------------------------------------------------------------------------------------------------------------

TEST(TcpWrap, rfc9293_3_4_peers_numbers_wrap) {
  Script t;
  t.peer_first = {0xffffff00};
  t.open_passive("mss 1460 sackok");
  t.run(
      "in: A seq 1 ack 1 len 200\nout: A ack 201\nin: A seq 301 ack 1 len 100\nout: A ack 201 sack 301-401\nin: A seq 201 ack 1 len 100\nout: A ack "
      "401\nrecv 400");
  t.run("in: FA seq 401 ack 1\nout: A ack 402\nrecv eof");
}
TEST(TcpWrap, rfc9293_3_4_own_numbers_wrap) {
  Script t;
  t.run("listen\nin: S seq 0 mss 1460 win 65535\nout: SA\nin: R seq 1");
  t.lower.now += u64{0xffffffff - 3000 - t.own_first.value} * 4000;  // the clock of initial numbers (RFC 6528) is turned
  t.own_first_known = false;
  t.run("in: S seq 0 mss 1460 win 65535 sackok\nout: SA\nin: A seq 1 ack 1\naccept\nsend 10000\ndrain\nin: A seq 1 ack 1461 sack 2921-4381\ndrain");
  EXPECT_GT(t.own_first.value, 0xfffff000u);
  t.run("in: A seq 1 ack 1461 sack 2921-7301\nout: A seq 1461 len 1460\ndrain\nin: A seq 1 ack 10001\nquiet");
  EXPECT_EQ(t.socket->information().send_queue, 0u);
}

}  // namespace
}  // namespace husk::net::tcp::test
