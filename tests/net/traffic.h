// Programs for the simulated machines: streams and datagrams whose every byte is known beforehand and checked.
#pragma once

#include <map>
#include <set>

#include "tests/net/network.h"

namespace husk::simulation {

// Byte `offset` of stream `key`.
void fill_pattern(u64 key, u64 offset, u8* to, size_t size);

// What one side of a connection does. All actions are edge-triggered: after EAGAIN it waits for its observer, or for its own pauses.
struct StreamPlan {
  u64 key_out = 0, key_in = 0;
  u64 bytes_out = 0, bytes_in = 0;
  u32 send_max = 64 * 1024, receive_max = 64 * 1024;  // of one call; the sizes are random below
  u64 send_pause_ns = 0, receive_pause_ns = 0;        // at most so much between calls
  u64 first_receive_ns = 0;                           // does not read before
  bool half_close = true;                             // shutdown(SHUT_WR) when all is sent; else close() after all is received
  bool wait_for_end = false;                          // sends only after the other side's end of stream: its half-close must leave this way open
};

class Stream final : public Actor, public net::SocketObserver {
 public:
  Stream(Network& network, Ref<net::tcp::Socket> socket, const StreamPlan& plan);
  ~Stream() override;
  bool step(u64 now_ns) override;
  u64 wake_ns() const override;
  bool done() const override { return done_; }
  void socket_changed(u32 events) override {
    ready_ = true;
    events_seen |= events;
  }
  net::tcp::Socket* socket() { return socket_.get(); }
  u64 sent() const { return sent_; }
  u64 received() const { return received_; }
  bool end_seen() const { return end_; }
  // Errors are failures of the test unless they are expected; then they end the stream.
  bool errors_expected = false;
  int error = 0;
  u64 ended_ns = 0;
  u32 events_seen = 0;

 private:
  bool send_some(u64 now_ns);
  bool receive_some(u64 now_ns);
  void fail(const char* what, int code);
  void finish();
  Network& network_;
  Random random_;
  Ref<net::tcp::Socket> socket_;
  StreamPlan plan_;
  u64 sent_ = 0, received_ = 0, send_at_ns_ = 0, receive_at_ns_ = 0;
  bool ready_ = true, shut_ = false, end_ = false, done_ = false;
  bool send_blocked_ = false, receive_blocked_ = false;
};

// Accepts, and hands each connection to `accepted`, until it is closed.
class Listener final : public Actor, public net::SocketObserver {
 public:
  Listener(Network& network, Host& host, net::Family family, u16 port, u32 backlog, std::function<void(Ref<net::tcp::Socket>)> accepted);
  ~Listener() override { close(); }
  bool step(u64 now_ns) override;
  bool done() const override { return !socket_; }
  void socket_changed(u32) override { ready_ = true; }
  void close();
  u64 accepted_count = 0;

 private:
  Ref<net::tcp::Socket> socket_;
  std::function<void(Ref<net::tcp::Socket>)> accepted_;
  bool ready_ = true;
};

// A socket that is connecting.
Ref<net::tcp::Socket> start_connect(Host& from, const net::IpAddress& to, u16 port);

// Sends datagrams that say who they are, and checks those that come back or in.
class DatagramEnd final : public Actor, public net::SocketObserver {
 public:
  DatagramEnd(Network& network, Host& host, net::Family family, u16 port);
  ~DatagramEnd() override;
  // `count` datagrams of 0 to `size_max` bytes to an endpoint, at most `pause_ns` apart.
  void send_to(const net::Endpoint& to, u32 count, u32 size_max, u64 pause_ns);
  bool step(u64 now_ns) override;
  u64 wake_ns() const override { return left_ != 0 && !blocked_ ? send_at_ns_ : kNever; }
  bool done() const override { return false; }
  void socket_changed(u32) override {
    ready_ = true;
    blocked_ = false;
  }
  net::udp::Socket& socket() { return *socket_; }
  u64 sent = 0, received = 0, duplicates = 0, errors = 0;

 private:
  bool send_one();
  bool receive_one();
  Network& network_;
  Random random_;
  Ref<net::udp::Socket> socket_;
  net::Endpoint to_;
  u32 left_ = 0, size_max_ = 0, number_ = 0;
  u64 pause_ns_ = 0, send_at_ns_ = 0;
  bool ready_ = true, blocked_ = false;
  std::set<std::pair<u16, u32>> seen_;
};

}  // namespace husk::simulation
