// Tests as tables of segments: one connection against a peer that the script plays.
//
//   in: FLAGS seq N ack N [len N] [win N] [mss N] [scale N] [sackok] [ts VALUE ECHO] [sack A-B] [pieces N]    the peer sends
//   out: the same, and [seg N]; only what is named is compared, but flags always. `quiet`: nothing was sent. `drain`: whatever was sent.
//   send N [more] | recv N | recv eof | recv ERRNO | accept | close | shutdown N | connect | listen [BACKLOG] | advance N{ms,s} | state NAME
//   events A|B | error ERRNO
//
// Numbers are relative: seq of the peer to its first, ack (and SACK blocks that come in) to our first; the other way round for what goes out.
// FLAGS: letters of SFRPA. Bytes have values that their place determines, and are compared.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "kernel/net/tcp/tcp.h"

namespace husk::net::tcp::test {

inline u8 byte_at(u32 place) { return static_cast<u8>(place * 7 + (place >> 8)); }

inline PacketPtr make_payload(u32 place, u32 size, u32 buffer = 0) {
  if (size == 0) return nullptr;
  auto packet = packet::Packet::create().release();
  for (u32 done = 0; done < size;) {
    u32 step = std::min(size - done, u32{4000});
    auto memory = packet::Buffer::create(std::max(step, buffer)).release();
    for (u32 i = 0; i < step; ++i) memory->data()[i] = byte_at(place + done + i);
    EXPECT_TRUE(packet->append({memory, 0, step}).ok());
    done += step;
  }
  return packet;
}

struct Sent {
  Flow flow;
  Segment segment;
  PacketPtr payload;
  u16 segment_size;
};

class FakeLower final : public Lower {
 public:
  u64 now = 1'000'000'000'000;
  u16 mtu = 1500;
  u32 segmentation_max = 0;
  int route_error = 0;
  std::deque<Sent> sent;
  u64 random_state = 12345;
  IpAddress own = IpAddress::v4(10, 0, 0, 1), own6 = IpAddress::v6("\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1");

  u64 now_ns() override { return now; }
  Result<Route> route(const Endpoint& remote, const IpAddress& bound) override {
    if (route_error != 0) return Error(route_error);
    IpAddress local = bound.is_any() ? (remote.address.is_v4() ? own : own6) : bound;
    return Route{local, mtu, segmentation_max};
  }
  bool is_local(const IpAddress& address) override { return address == own || address == own6 || address == IpAddress::v4(127, 0, 0, 1); }
  void output(const Flow& flow, const Segment& segment, PacketPtr payload, u16 segment_size, u8, u8) override {
    EXPECT_EQ(payload ? payload->size() : 0, segment.payload_size);
    sent.push_back({flow, segment, std::move(payload), segment_size});
  }
  void random(void* to, size_t size) override {
    for (size_t i = 0; i < size; ++i) {
      random_state = random_state * 6364136223846793005u + 1442695040888963407u;
      static_cast<u8*>(to)[i] = static_cast<u8>(random_state >> 56);
    }
  }
};

class Observer final : public SocketObserver {
 public:
  u32 calls = 0, last = 0;
  void socket_changed(u32 events) override {
    ++calls;
    last = events;
  }
};

inline int errno_of(const std::string& name) {
  static const std::map<std::string, int> kNames = {{"EAGAIN", EAGAIN},
                                                    {"ECONNRESET", ECONNRESET},
                                                    {"ECONNREFUSED", ECONNREFUSED},
                                                    {"ETIMEDOUT", ETIMEDOUT},
                                                    {"EPIPE", EPIPE},
                                                    {"EHOSTUNREACH", EHOSTUNREACH},
                                                    {"ENOTCONN", ENOTCONN},
                                                    {"EINPROGRESS", EINPROGRESS},
                                                    {"EADDRINUSE", EADDRINUSE},
                                                    {"EISCONN", EISCONN},
                                                    {"EALREADY", EALREADY},
                                                    {"EINVAL", EINVAL},
                                                    {"0", 0}};
  return kNames.at(name);
}

class Script {
 public:
  explicit Script(Tcp::Limits limits = {}) : tcp(Tcp::create(lower, limits).release()) {
    remote = {IpAddress::v4(10, 0, 0, 2), 4000};
    local = {lower.own, 80};
  }
  ~Script() {
    for (auto& held : sockets) held->close();
    socket = nullptr;
    listener = nullptr;
    sockets.clear();
    tcp->run();
  }

  FakeLower lower;
  Owned<Tcp> tcp;
  Ref<Socket> socket, listener;
  std::vector<Ref<Socket>> sockets;
  Observer observer;
  Endpoint remote, local;
  SeqNum own_first, peer_first{5000};
  u32 sent_bytes = 0, read_bytes = 0;
  bool own_first_known = false;

  Ref<Socket> make_socket(Family family = Family::v4) {
    auto made = tcp->socket(family).release();
    sockets.push_back(made);
    return made;
  }
  void set(Options options) { (socket ? socket : listener)->set_options(options); }
  Options options() { return (socket ? socket : listener)->options(); }

  void run(const std::string& text) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words(line);
      std::string command;
      if (!(words >> command)) continue;
      SCOPED_TRACE(line);
      step(command, words);
      if (::testing::Test::HasFatalFailure()) return;
    }
  }

  // SYN, SYN-ACK, ACK, accept.
  void open_passive(const std::string& options = "mss 1460") {
    run("listen\nin: S seq 0 win 65535 " + options + "\nout: SA seq 0 ack 1\nin: A seq 1 ack 1 win 65535" + timestamp_for(options) +
        "\naccept\nstate ESTABLISHED\nquiet");
  }
  void open_active(const std::string& options = "mss 1460") {
    run("connect\nout: S seq 0\nin: SA seq 0 ack 1 win 65535 " + options + "\nout: A seq 1 ack 1\nstate ESTABLISHED\nquiet");
  }
  static std::string timestamp_for(const std::string& options) {
    size_t at = options.find("ts ");
    return at == std::string::npos ? "" : " " + options.substr(at, options.find(' ', options.find(' ', at + 3) + 1) - at);
  }

  static std::string describe(const Sent& sent, SeqNum own, SeqNum peer) {
    const Segment& s = sent.segment;
    std::ostringstream out;
    for (auto [flag, letter] : {std::pair{kSyn, 'S'}, {kFin, 'F'}, {kRst, 'R'}, {kPsh, 'P'}, {kAck, 'A'}})
      if (s.has(flag)) out << letter;
    out << " seq " << (s.seq.value - own.value) << " ack " << (s.ack.value - peer.value) << " len " << s.payload_size << " win " << s.window;
    if (s.mss) out << " mss " << s.mss;
    for (int i = 0; i < s.sack_count; ++i) out << " sack " << (s.sack[i].first.value - peer.value) << "-" << (s.sack[i].end.value - peer.value);
    if (sent.segment_size) out << " seg " << sent.segment_size;
    return out.str();
  }

  void quiet() {
    tcp->run();
    finish_advance();
    for (auto& sent : lower.sent) ADD_FAILURE() << "unexpected: " << describe(sent, own_first, peer_first);
    lower.sent.clear();
  }

 private:
  static u8 parse_flags(const std::string& letters) {
    u8 flags = 0;
    for (char c : letters)
      flags = static_cast<u8>(flags | (c == 'S'   ? kSyn
                                       : c == 'F' ? kFin
                                       : c == 'R' ? kRst
                                       : c == 'P' ? kPsh
                                       : c == 'A' ? kAck
                                       : c == 'U' ? kUrg
                                                  : 0));
    return flags;
  }

  void step(const std::string& command, std::istringstream& words) {
    if (command == "in:") return in(words);
    if (command == "out:") return out(words);
    if (command == "quiet") return quiet();
    if (command == "drain") {
      do {
        tcp->run();
        lower.sent.clear();
        finish_advance();
      } while (!lower.sent.empty());
      return;
    }
    quiet();
    std::string word;
    words >> word;
    if (command == "advance") return advance(word);
    if (command == "state") {
      EXPECT_STREQ(name_of(socket->state()), word.c_str());
    } else if (command == "listen") {
      listener = make_socket();
      ASSERT_TRUE(listener->bind(local).ok());
      ASSERT_TRUE(listener->listen(word.empty() ? 16 : static_cast<u32>(std::stoul(word))).ok());
    } else if (command == "accept") {
      auto got = listener->accept();
      ASSERT_TRUE(got.ok());
      socket = got.release();
      socket->set_observer(&observer);
      sockets.push_back(socket);
    } else if (command == "connect") {
      if (!socket) socket = make_socket();
      socket->set_observer(&observer);
      std::swap(local.port, remote.port);
      auto result = socket->connect(remote);
      EXPECT_EQ(result.error().code(), EINPROGRESS);
      local = socket->local();
    } else if (command == "send") {
      u32 bytes = static_cast<u32>(std::stoul(word));
      send(bytes, (words >> word) && word == "more" ? Socket::More::yes : Socket::More::no);
    } else if (command == "recv") {
      receive(word);
    } else if (command == "close") {
      socket->close();
    } else if (command == "shutdown") {
      EXPECT_TRUE(socket->shutdown(std::stoi(word)).ok());
    } else if (command == "error") {
      EXPECT_EQ(socket->take_error(), errno_of(word));
    } else if (command == "events") {
      u32 wanted = 0;
      std::istringstream names(word);
      for (std::string name; std::getline(names, name, '|');)
        wanted |= name == "IN"      ? u32{kReadable}
                  : name == "OUT"   ? kWritable
                  : name == "ERR"   ? kError
                  : name == "HUP"   ? kHangUp
                  : name == "RDHUP" ? kReadHangUp
                                    : u32{0};
      EXPECT_EQ(socket->events(), wanted);
    } else {
      FAIL() << "no such command: " << command;
    }
    tcp->run();
  }

  void advance(const std::string& word) {
    u64 end = lower.now + std::stoull(word) * (word.ends_with("ms") ? 1'000'000 : 1'000'000'000);
    while (tcp->next_deadline_ns() <= end) {
      lower.now = std::max(lower.now, tcp->next_deadline_ns());
      tcp->run();
      if (!lower.sent.empty() && lower.now < end) {  // the rest goes on after the script has looked
        pending_until_ = end;
        break;
      }
    }
    if (lower.sent.empty()) lower.now = end;
    pending_until_ = end;
  }
  void finish_advance() {
    if (pending_until_ > lower.now && lower.sent.empty()) {
      u64 end = pending_until_;
      while (tcp->next_deadline_ns() <= end && lower.sent.empty()) {
        lower.now = std::max(lower.now, tcp->next_deadline_ns());
        tcp->run();
      }
      if (lower.sent.empty()) lower.now = end;
    }
  }

  void send(u32 bytes, Socket::More more) {
    std::vector<u8> data(bytes);
    for (u32 i = 0; i < bytes; ++i) data[i] = byte_at(sent_bytes + 1 + i);
    vfs::IoSegment part = vfs::IoBuffer::kernel_segment(data.data(), bytes);
    vfs::IoBuffer from({&part, 1}, vfs::IoBuffer::Memory::kernel);
    auto result = socket->send(from, more);
    ASSERT_TRUE(result.ok()) << result.error().code();
    EXPECT_EQ(*result, bytes);
    sent_bytes += static_cast<u32>(*result);
  }

  void receive(const std::string& wanted) {
    std::vector<u8> data(200'000);
    vfs::IoSegment part = vfs::IoBuffer::kernel_segment(data.data(), data.size());
    vfs::IoBuffer to({&part, 1}, vfs::IoBuffer::Memory::kernel);
    auto result = socket->receive(to, Socket::Peek::no);
    if (wanted == "eof") {
      ASSERT_TRUE(result.ok()) << result.error().code();
      EXPECT_EQ(*result, 0u);
    } else if (wanted[0] == 'E') {
      ASSERT_FALSE(result.ok());
      EXPECT_EQ(result.error().code(), errno_of(wanted));
    } else {
      ASSERT_TRUE(result.ok()) << result.error().code();
      EXPECT_EQ(*result, std::stoul(wanted));
      for (u32 i = 0; i < *result; ++i) ASSERT_EQ(data[i], byte_at(read_bytes + 1 + i)) << "byte " << i;
      read_bytes += static_cast<u32>(*result);
    }
  }

  struct Parsed {
    Segment segment;
    u32 pieces = 1;
    std::map<std::string, bool> named;
    u16 segment_size = 0;
  };
  Parsed parse(std::istringstream& words, SeqNum seq_base, SeqNum ack_base) {
    Parsed p;
    std::string word;
    words >> word;
    p.segment.flags = parse_flags(word);
    auto number = [&] {
      i64 value = 0;
      words >> value;
      return static_cast<u32>(value);
    };
    while (words >> word) {
      p.named[word] = true;
      if (word == "seq") p.segment.seq = seq_base + number();
      if (word == "ack") p.segment.ack = ack_base + number();
      if (word == "len") p.segment.payload_size = number();
      if (word == "win") p.segment.window = static_cast<u16>(number());
      if (word == "mss") p.segment.mss = static_cast<u16>(number());
      if (word == "scale") p.segment.window_scale = static_cast<i8>(number());
      if (word == "sackok") p.segment.sack_permitted = true;
      if (word == "seg") p.segment_size = static_cast<u16>(number());
      if (word == "pieces") p.pieces = number();
      if (word == "ts") {
        p.segment.has_timestamps = true;
        p.segment.timestamp_value = number();
        p.segment.timestamp_echo = number();
      }
      if (word == "sack") {
        std::string range;
        words >> range;
        size_t dash = range.find('-');
        p.segment.sack[p.segment.sack_count++] = {ack_base + static_cast<u32>(std::stoul(range)),
                                                  ack_base + static_cast<u32>(std::stoul(range.substr(dash + 1)))};
      }
    }
    return p;
  }

  void in(std::istringstream& words) {
    quiet();
    Parsed p = parse(words, peer_first, own_first);
    if (!p.named.contains("win")) p.segment.window = last_window_;
    last_window_ = p.segment.window;
    u32 place = p.segment.seq - peer_first + (p.segment.has(kSyn) ? 1 : 0);
    tcp->input({local, remote}, p.segment, make_payload(place, p.segment.payload_size), p.pieces);
    tcp->run();
  }

  void out(std::istringstream& words) {
    tcp->run();
    finish_advance();
    ASSERT_FALSE(lower.sent.empty()) << "nothing was sent";
    Sent sent = std::move(lower.sent.front());
    lower.sent.pop_front();
    if (sent.segment.has(kSyn) && !own_first_known) {
      own_first = sent.segment.seq;
      own_first_known = true;
    }
    Parsed p = parse(words, own_first, peer_first);
    const Segment &want = p.segment, &got = sent.segment;
    SCOPED_TRACE("sent: " + describe(sent, own_first, peer_first));
    EXPECT_EQ(got.flags & ~kPsh, want.flags & ~kPsh);
    if (p.named["len"]) {
      EXPECT_EQ(got.payload_size, want.payload_size);
    }
    if (p.named["seq"]) {
      EXPECT_EQ(got.seq, want.seq);
    }
    if (p.named["ack"]) {
      EXPECT_EQ(got.ack, want.ack);
    }
    if (p.named["win"]) {
      EXPECT_EQ(got.window, want.window);
    }
    if (p.named["mss"]) {
      EXPECT_EQ(got.mss, want.mss);
    }
    if (p.named["scale"]) {
      EXPECT_EQ(got.window_scale, want.window_scale);
    }
    if (p.named["sackok"]) {
      EXPECT_TRUE(got.sack_permitted);
    }
    if (p.named["seg"]) {
      EXPECT_EQ(sent.segment_size, p.segment_size);
    }
    if (p.named["sack"]) {
      ASSERT_EQ(got.sack_count, want.sack_count);
      for (int i = 0; i < want.sack_count; ++i) EXPECT_EQ(got.sack[i], want.sack[i]);
    }
    for (u32 i = 0; i < got.payload_size; ++i) {
      u8 byte;
      sent.payload->copy_out(i, &byte, 1);
      ASSERT_EQ(byte, byte_at(got.seq - own_first + i)) << "byte " << i;
    }
    last_sent = got;
  }

  u16 last_window_ = 65535;
  u64 pending_until_ = 0;

 public:
  Segment last_sent;
};

}  // namespace husk::net::tcp::test
