// Arbitrary segments, calls and times against one listener and one active connection: no crash, no assertion, and all memory is given back.
#include <vector>

#include "kernel/net/tcp/tcp.h"

namespace husk::net::tcp {
namespace {

class Input {
 public:
  Input(const u8* data, size_t size) : data_(data), size_(size) {}
  bool empty() const { return size_ == 0; }
  u8 byte() { return size_ == 0 ? u8{0} : (--size_, *data_++); }
  u32 word() { return byte() | u32{byte()} << 8 | u32{byte()} << 16 | u32{byte()} << 24; }

 private:
  const u8* data_;
  size_t size_;
};

class Below final : public Lower {
 public:
  u64 now = 1'000'000'000;
  Segment last;  // that was sent: what an attacker on the path sees
  u64 now_ns() override { return now; }
  Result<Route> route(const Endpoint&, const IpAddress&) override { return Route{IpAddress::v4(10, 0, 0, 1), 1500, 20000}; }
  bool is_local(const IpAddress&) override { return true; }
  void output(const Flow&, const Segment& segment, PacketPtr payload, u16, u8, u8) override {
    HUSK_ASSERT(segment.payload_size == (payload ? payload->size() : 0));
    last = segment;
  }
  void random(void* to, size_t size) override { memset(to, 0x5a, size); }
};

// Numbers near to those that matter, or anything.
u32 near_to(Input& input, u32 value) {
  u8 kind = input.byte();
  if (kind < 128) return value + kind % 8 - 3;
  if (kind < 250) return value + (kind - 128u) * 1460;
  return input.word();
}

void segment_from(Input& input, Tcp& tcp, Below& below, const Flow& flow, u32& peer_next) {
  Segment segment;
  segment.flags = input.byte();
  segment.seq = {near_to(input, below.last.has(kAck) ? below.last.ack.value : peer_next)};
  segment.ack = {near_to(input, below.last.seq.value + below.last.length())};
  segment.window = static_cast<u16>(input.byte() << (input.byte() & 15));
  u8 options = input.byte();
  if (options & 1) {
    u8 size = input.byte();
    segment.mss = static_cast<u16>((size & 1) != 0 ? size : size * 16);
  }
  if (options & 2) segment.window_scale = static_cast<i8>(input.byte() & 15);
  segment.sack_permitted = options & 4;
  if (options & 8)
    segment.has_timestamps = true, segment.timestamp_value = input.byte(), segment.timestamp_echo = near_to(input, below.last.timestamp_value);
  segment.sack_count = options >> 4 & 3;
  for (u8 i = 0; i < segment.sack_count; ++i) {
    segment.sack[i].first = {near_to(input, below.last.seq.value)};
    segment.sack[i].end = {near_to(input, segment.sack[i].first.value)};
  }
  PacketPtr payload;
  u32 size = input.byte() * (options & 128 ? 100u : 1u);
  if (size > 0) {
    payload = packet::Packet::create(size).release();
    memset(payload->head().data(), 0x11, size);
    segment.payload_size = size;
  }
  peer_next += segment.length();
  tcp.input(flow, segment, std::move(payload), 1 + (options >> 6 & 1));
}

void call(Input& input, Socket& socket) {
  static u8 bytes[20000];
  vfs::IoSegment part = vfs::IoBuffer::kernel_segment(bytes, input.byte() * 78u);
  vfs::IoBuffer buffer({&part, 1}, vfs::IoBuffer::Memory::kernel);
  u8 kind = input.byte();
  if (kind < 90) return (void)socket.send(buffer, kind & 1 ? Socket::More::yes : Socket::More::no);
  if (kind < 180) return (void)socket.receive(buffer, kind & 1 ? Socket::Peek::yes : Socket::Peek::no);
  if (kind < 190) return (void)socket.discard(kind);
  if (kind < 200) return (void)socket.shutdown(kind % 3);
  if (kind < 220) {
    Options options = socket.options();
    options.no_delay = kind & 1, options.cork = kind & 2, options.keep_alive = kind & 4, options.linger = kind & 8, options.quick_ack = kind & 16;
    return socket.set_options(options);
  }
  (void)socket.events();
  (void)socket.information();
}

}  // namespace
}  // namespace husk::net::tcp

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace husk;
  using namespace husk::net;
  using namespace husk::net::tcp;
  Input input(data, size);
  Below below;
  Tcp::Limits limits;
  limits.memory = 256 * kKiB;
  limits.half_open = 2;
  auto stack = Tcp::create(below, limits).release();
  Endpoint own{IpAddress::v4(10, 0, 0, 1), 80}, peer{IpAddress::v4(10, 0, 0, 2), 4000};
  std::vector<Ref<Socket>> sockets;
  sockets.push_back(stack->socket(Family::v4).release());
  (void)sockets[0]->bind(own);
  (void)sockets[0]->listen(2);
  sockets.push_back(stack->socket(Family::v4).release());
  (void)sockets[1]->connect(peer);
  Flow flows[2] = {{own, peer}, {sockets[1]->local(), peer}};
  u32 peer_next = 100;
  while (!input.empty()) {
    u8 what = input.byte();
    if (what < 160) {
      segment_from(input, *stack, below, flows[what & 1], peer_next);
    } else if (what < 200) {
      call(input, *sockets[what % sockets.size()]);
    } else if (what < 220) {
      auto got = sockets[0]->accept();
      if (got.ok()) sockets.push_back(got.release());
    } else if (what < 225) {
      stack->network_error(flows[what & 1], {near_to(input, below.last.seq.value)}, what & 2 ? EMSGSIZE : EHOSTUNREACH, input.byte() * 8);
    } else {
      below.now += u64{1'000'000} << (input.byte() & 15);
    }
    stack->run();
  }
  for (auto& socket : sockets) socket->close();
  sockets.clear();
  stack->run();
  below.now += u64{3600} * 1'000'000'000;
  for (int i = 0; i < 60; ++i) {
    stack->run();
    below.now += u64{125} * 1'000'000'000;
  }
  HUSK_ASSERT(stack->statistics().sockets == 0 && stack->statistics().memory_used == 0);
  return 0;
}
