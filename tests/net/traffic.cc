// See tests/net/traffic.h.
#include "tests/net/traffic.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernel/vfs/io.h"
#include "wire/endian.h"

namespace husk::simulation {

using net::tcp::Socket;

namespace {

struct Memory {
  vfs::IoSegment segment;
  vfs::IoBuffer buffer;
  Memory(void* data, size_t size) : segment(vfs::IoBuffer::kernel_segment(data, size)), buffer({&segment, 1}, vfs::IoBuffer::Memory::kernel) {}
};

u64 mix(u64 value) {
  value *= 0x9e3779b97f4a7c15;
  value ^= value >> 29;
  value *= 0xbf58476d1ce4e5b9;
  return value ^ value >> 32;
}

}  // namespace

void fill_pattern(u64 key, u64 offset, u8* to, size_t size) {
  for (size_t i = 0; i < size;) {
    u64 word = mix(key * 0x100000001b3 + (offset + i) / 8);
    size_t from = (offset + i) % 8, step = std::min<size_t>(8 - from, size - i);
    memcpy(to + i, reinterpret_cast<u8*>(&word) + from, step);
    i += step;
  }
}

// --- streams -----------------------------------------------------------------

Stream::Stream(Network& network, Ref<Socket> socket, const StreamPlan& plan)
    : network_(network), random_(network.random().next()), socket_(std::move(socket)), plan_(plan) {
  socket_->set_observer(this);
  receive_at_ns_ = plan_.first_receive_ns;
}

Stream::~Stream() {
  if (done_) return;
  socket_->set_observer(nullptr);
  socket_->close();
}

void Stream::fail(const char* what, int code) {
  error = code;
  EXPECT_TRUE(errors_expected) << what << ": errno " << code << " after " << sent_ << "/" << plan_.bytes_out << " sent, " << received_ << "/"
                               << plan_.bytes_in << " received, port " << socket_->local().port;
  finish();
}

void Stream::finish() {
  socket_->set_observer(nullptr);
  socket_->close();
  socket_ = nullptr;
  done_ = true;
  ended_ns = network_.now_ns();
}

bool Stream::send_some(u64 now) {
  if (sent_ == plan_.bytes_out) {
    if (shut_ || !plan_.half_close) return false;
    if (auto result = socket_->shutdown(1); !result.ok()) fail("shutdown", result.error().code());
    shut_ = true;
    return true;
  }
  u8 bytes[64 * 1024];
  size_t size = std::min<u64>({plan_.bytes_out - sent_, random_.magnitude(1, plan_.send_max), sizeof(bytes)});
  fill_pattern(plan_.key_out, sent_, bytes, size);
  Memory memory(bytes, size);
  auto result = socket_->send(memory.buffer, random_.chance(100'000) ? Socket::More::yes : Socket::More::no);
  if (!result.ok()) {
    if (result.error().code() != EAGAIN) fail("send", result.error().code());
    send_blocked_ = true;
    return done_;
  }
  if (*result == 0 || *result > size) ADD_FAILURE() << "send took " << *result << " of " << size;
  sent_ += *result;
  if (plan_.send_pause_ns != 0) send_at_ns_ = now + random_.below(plan_.send_pause_ns);
  return true;
}

bool Stream::receive_some(u64 now) {
  static u8 bytes[256 * 1024], expected[256 * 1024];
  size_t size = random_.magnitude(1, std::min<u64>(plan_.receive_max, sizeof(bytes)));
  Memory memory(bytes, size);
  bool peek = random_.chance(20'000);
  auto result = socket_->receive(memory.buffer, peek ? Socket::Peek::yes : Socket::Peek::no);
  if (!result.ok()) {
    if (result.error().code() != EAGAIN) fail("receive", result.error().code());
    receive_blocked_ = true;
    return done_;
  }
  size_t got = *result;
  if (got == 0) {
    EXPECT_EQ(received_, plan_.bytes_in) << "the stream ended early";
    if (!peek) end_ = true;
    return true;
  }
  if (got > size || received_ + got > plan_.bytes_in) {
    ADD_FAILURE() << "more bytes than were sent: " << received_ + got << " of " << plan_.bytes_in;
    finish();
    return true;
  }
  fill_pattern(plan_.key_in, received_, expected, got);
  if (memcmp(bytes, expected, got) != 0) {
    size_t at = static_cast<size_t>(std::mismatch(bytes, bytes + got, expected).first - bytes);
    ADD_FAILURE() << "wrong byte at " << received_ + at << " of " << plan_.bytes_in << ", " << (peek ? "peeked" : "received");
    finish();
    return true;
  }
  if (!peek) received_ += got;
  if (plan_.receive_pause_ns != 0) receive_at_ns_ = now + random_.below(plan_.receive_pause_ns);
  return true;
}

bool Stream::step(u64 now) {
  if (ready_) send_blocked_ = receive_blocked_ = false;
  ready_ = false;
  if (socket_->state() == net::tcp::State::syn_sent) return false;  // its observer will hear
  bool moved = false;
  if (!done_ && !end_ && !receive_blocked_ && now >= receive_at_ns_) moved |= receive_some(now);
  if (!done_ && !send_blocked_ && now >= send_at_ns_ && (!plan_.wait_for_end || end_)) moved |= send_some(now);
  bool over = end_ || (!plan_.half_close && received_ == plan_.bytes_in);
  if (!done_ && over && sent_ == plan_.bytes_out && (shut_ || !plan_.half_close)) {
    finish();
    moved = true;
  }
  return moved;
}

u64 Stream::wake_ns() const {
  u64 now = network_.now_ns(), wake = kNever;
  if (!end_ && !receive_blocked_ && receive_at_ns_ > now) wake = receive_at_ns_;
  if (!send_blocked_ && send_at_ns_ > now) wake = std::min(wake, send_at_ns_);
  return wake;
}

// --- listeners ---------------------------------------------------------------

Listener::Listener(Network&, Host& host, net::Family family, u16 port, u32 backlog, std::function<void(Ref<Socket>)> accepted)
    : accepted_(std::move(accepted)) {
  auto socket = host.stack().tcp().socket(family);
  HUSK_ASSERT(socket.ok());
  socket_ = socket.release();
  net::Endpoint local;
  if (family == net::Family::v4) local.address = net::IpAddress::v4(0, 0, 0, 0);
  local.port = port;
  socket_->set_observer(this);
  auto bound = socket_->bind(local);
  EXPECT_TRUE(bound.ok()) << "bind: errno " << (bound.ok() ? 0 : bound.error().code());
  auto listening = socket_->listen(backlog);
  EXPECT_TRUE(listening.ok()) << "listen: errno " << (listening.ok() ? 0 : listening.error().code());
}

bool Listener::step(u64) {
  if (!std::exchange(ready_, false)) return false;
  bool moved = false;
  while (true) {
    auto made = socket_->accept();
    if (!made.ok()) {
      EXPECT_EQ(made.error().code(), EAGAIN);
      return moved;
    }
    moved = true;
    ++accepted_count;
    accepted_(made.release());
    if (!socket_) return true;
  }
}

void Listener::close() {
  if (!socket_) return;
  socket_->set_observer(nullptr);
  socket_->close();
  socket_ = nullptr;
}

Ref<Socket> start_connect(Host& from, const net::IpAddress& to, u16 port) {
  auto socket = from.stack().tcp().socket(to.is_v4() ? net::Family::v4 : net::Family::v6);
  HUSK_ASSERT(socket.ok());
  auto result = (*socket)->connect({to, port});
  EXPECT_TRUE(!result.ok() && result.error().code() == EINPROGRESS) << "connect: errno " << (result.ok() ? 0 : result.error().code());
  return socket.release();
}

// --- datagrams ---------------------------------------------------------------

namespace {

// Port of the sender, number, size; then the pattern.
constexpr u32 kMark = 10;

}  // namespace

DatagramEnd::DatagramEnd(Network& network, Host& host, net::Family family, u16 port) : network_(network), random_(network.random().next()) {
  auto socket = host.stack().udp_socket(family);
  HUSK_ASSERT(socket.ok());
  socket_ = socket.release();
  net::Endpoint local;
  if (family == net::Family::v4) local.address = net::IpAddress::v4(0, 0, 0, 0);
  local.port = port;
  EXPECT_TRUE(socket_->bind(local).ok());
  socket_->set_observer(this);
}

DatagramEnd::~DatagramEnd() {
  socket_->set_observer(nullptr);
  socket_->close();
}

void DatagramEnd::send_to(const net::Endpoint& to, u32 count, u32 size_max, u64 pause_ns) {
  to_ = to, left_ = count, size_max_ = size_max, pause_ns_ = pause_ns, send_at_ns_ = network_.now_ns();
}

bool DatagramEnd::send_one() {
  Bytes bytes(kMark + random_.magnitude(1, size_max_ - kMark));
  wire::store_be16(&bytes[0], socket_->local().port);
  wire::store_be32(&bytes[2], number_);
  wire::store_be32(&bytes[6], static_cast<u32>(bytes.size()));
  fill_pattern(number_, 0, &bytes[kMark], bytes.size() - kMark);
  Memory memory(bytes.data(), bytes.size());
  auto result = socket_->send(memory.buffer, &to_, nullptr);
  if (!result.ok()) {
    blocked_ = result.error().code() == EAGAIN;
    if (!blocked_) ++errors, send_at_ns_ = network_.now_ns() + kMillisecond;  // ECONNREFUSED, ENOBUFS: tried again
    return false;
  }
  EXPECT_EQ(*result, bytes.size());
  ++number_, ++sent, --left_;
  send_at_ns_ = network_.now_ns() + random_.below(pause_ns_ + 1);
  return true;
}

bool DatagramEnd::receive_one() {
  Bytes bytes(70'000);
  Memory memory(bytes.data(), bytes.size());
  auto result = socket_->receive(memory.buffer, net::udp::Socket::Peek::no);
  if (!result.ok()) {
    if (result.error().code() != EAGAIN) ++errors;
    ready_ = result.error().code() != EAGAIN;
    return ready_;
  }
  size_t size = result->size;
  if (size < kMark || wire::load_be32(&bytes[6]) != size || size != memory.buffer.done()) {
    ADD_FAILURE() << "a datagram of " << size << " bytes, " << memory.buffer.done() << " given, that says it has " << wire::load_be32(&bytes[6]);
    return true;
  }
  u16 from = wire::load_be16(&bytes[0]);
  u32 number = wire::load_be32(&bytes[2]);
  EXPECT_EQ(result->from.port, from);
  Bytes expected(size - kMark);
  fill_pattern(number, 0, expected.data(), expected.size());
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), bytes.begin() + kMark)) << "datagram " << number << " is damaged";
  ++received;
  if (!seen_.insert({from, number}).second) ++duplicates;
  return true;
}

bool DatagramEnd::step(u64 now) {
  bool moved = false;
  while (ready_ && receive_one()) moved = true;
  if (left_ != 0 && !blocked_ && now >= send_at_ns_) moved |= send_one();
  return moved;
}

}  // namespace husk::simulation
