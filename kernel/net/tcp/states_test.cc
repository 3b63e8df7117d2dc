// RFC 9293 §3.10: opening, the steps of segment arrival in each state, closing.
#include "kernel/net/tcp/script_test.h"

namespace husk::net::tcp::test {
namespace {

TEST(Tcp, rfc9293_3_5_passive_open_transfer_and_close) {
  Script t;
  t.open_passive();
  t.run(R"(
    in: PA seq 1 ack 1 len 100
    out: A seq 1 ack 101
    recv 100
    send 1000
    out: PA seq 1 ack 101 len 1000
    in: A seq 101 ack 1001
    in: FA seq 101 ack 1001
    out: A seq 1001 ack 102
    state CLOSE_WAIT
    recv eof
    close
    out: FA seq 1001 ack 102
    in: A seq 102 ack 1002
    state CLOSED
    quiet
  )");
  EXPECT_EQ(t.tcp->statistics().memory_used, 0u);
}

TEST(Tcp, rfc9293_3_5_active_open_transfer_and_close) {
  Script t;
  t.open_active("mss 1460 scale 7 sackok");
  t.run(R"(
    send 100
    out: PA seq 1 ack 1 len 100
    in: PA seq 1 ack 101 len 3000
    out: A seq 101 ack 3001
    recv 3000
    close
    out: FA seq 101 ack 3001
    state FIN_WAIT_1
    in: A seq 3001 ack 102
    state FIN_WAIT_2
    in: FA seq 3001 ack 102
    out: A seq 102 ack 3002
    quiet
  )");
  EXPECT_EQ(t.tcp->statistics().time_wait, 1u);
  t.run("advance 60s");
  EXPECT_EQ(t.tcp->statistics().time_wait, 0u);
  EXPECT_EQ(t.tcp->statistics().memory_used, 0u);
}

TEST(Tcp, rfc6298_5_retransmission_after_timeout_with_backoff) {
  Script t;
  t.open_passive();
  t.run(R"(
    send 2000
    out: A seq 1 len 1460
    out: PA seq 1461 len 540
    advance 200ms
    out: A seq 1 len 1460
    advance 400ms
    out: A seq 1 len 1460
    in: A seq 1 ack 1461
    out: PA seq 1461 len 540
    in: A seq 1 ack 2001
    quiet
  )");
  EXPECT_EQ(t.tcp->statistics().memory_used, 0u);
}

}  // namespace
}  // namespace husk::net::tcp::test
