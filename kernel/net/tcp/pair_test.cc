// Two endpoints and a link in virtual time: delay, loss, reordering, duplication; every byte arrives once and in order, and memory returns to zero.
#include <queue>
#include <random>

#include "kernel/net/tcp/script_test.h"

namespace husk::net::tcp::test {
namespace {

struct LinkRules {
  double loss = 0, duplicate = 0, reorder = 0;
  u64 delay_ns = 5'000'000, rate_bytes_per_ms = 12'500;  // 100 Mbit/s
  u32 queue_bytes = 200'000;
  u32 segmentation_max = 0;
  bool merges = false;
};

struct InFlight {
  u64 at, number;
  int to;
  Flow flow;
  Segment segment;
  std::shared_ptr<std::string> payload;
  bool operator<(const InFlight& other) const { return at != other.at ? at > other.at : number > other.number; }
};

class Network;
class Host final : public Lower {
 public:
  Host(Network& net, int index) : network(net), id(index) {}
  u64 now_ns() override;
  Result<Route> route(const Endpoint&, const IpAddress&) override;
  bool is_local(const IpAddress& address) override { return address == own(); }
  void output(const Flow& flow, const Segment& segment, PacketPtr payload, u16 segment_size, u8, u8) override;
  void random(void* to, size_t size) override {
    for (size_t i = 0; i < size; ++i) static_cast<u8*>(to)[i] = static_cast<u8>(generator());
  }
  IpAddress own() const { return IpAddress::v4(10, 0, 0, static_cast<u8>(1 + id)); }
  Network& network;
  const int id;
  std::mt19937 generator{static_cast<u32>(id + 77)};
  Owned<Tcp> tcp;
};

class Network {
 public:
  explicit Network(LinkRules link_rules, u32 seed, Tcp::Limits limits = {}) : rules(link_rules), generator(seed) {
    for (Host* host : {&a, &b}) host->tcp = Tcp::create(*host, limits).release();
  }
  bool chance(double probability) { return std::uniform_real_distribution<>(0, 1)(generator) < probability; }
  void carry(int from, const Flow& flow, Segment segment, std::string payload) {
    ++carried;
    u64& busy = busy_until[from];
    busy = std::max(busy, now);
    if ((busy - now) / 1'000'000 * rules.rate_bytes_per_ms > rules.queue_bytes || chance(rules.loss)) {
      ++lost;
      return;
    }
    busy += (payload.size() + 60) * 1'000'000 / rules.rate_bytes_per_ms;
    auto bytes = std::make_shared<std::string>(std::move(payload));
    int copies = chance(rules.duplicate) ? 2 : 1;
    while (copies-- > 0) {
      u64 at = busy + rules.delay_ns + (chance(rules.reorder) ? generator() % 20'000'000 : 0);
      queue.push({at, ++number, 1 - from, {flow.remote, flow.local}, segment, bytes});
    }
  }
  // Lets time pass until `done` says so. False: nothing is left that could happen, or `limit_ns` is over.
  template <typename Done>
  bool run(Done&& done, u64 limit_ns) {
    u64 end = now + limit_ns;
    while (!done()) {
      a.tcp->run();
      b.tcp->run();
      if (done()) break;
      u64 next = std::min(a.tcp->next_deadline_ns(), b.tcp->next_deadline_ns());
      if (!queue.empty()) next = std::min(next, queue.top().at);
      if (next == ~u64{0} || next > end) return false;
      now = std::max(now, next);
      while (!queue.empty() && queue.top().at <= now) {
        InFlight item = queue.top();
        queue.pop();
        PacketPtr payload;
        if (!item.payload->empty()) {
          payload = packet::Packet::create(static_cast<u32>(item.payload->size())).release();
          memcpy(payload->head().data(), item.payload->data(), item.payload->size());
        }
        (item.to == 0 ? a : b).tcp->input(item.flow, item.segment, std::move(payload), 1);
      }
    }
    return true;
  }

  LinkRules rules;
  std::mt19937 generator;
  u64 now = 1'000'000'000, number = 0, carried = 0, lost = 0;
  u64 busy_until[2] = {};
  std::priority_queue<InFlight> queue;
  Host a{*this, 0}, b{*this, 1};
};

u64 Host::now_ns() { return network.now; }
Result<Lower::Route> Host::route(const Endpoint&, const IpAddress&) { return Route{own(), 1500, network.rules.segmentation_max}; }
void Host::output(const Flow& flow, const Segment& segment, PacketPtr payload, u16 segment_size, u8, u8) {
  std::string bytes(segment.payload_size, 0);
  if (payload != nullptr) payload->copy_out(0, bytes.data(), segment.payload_size);
  u32 step = segment_size != 0 ? segment_size : std::max<u32>(segment.payload_size, 1);
  u32 done = 0;
  do {
    Segment piece = segment;
    piece.seq = segment.seq + done;
    piece.payload_size = std::min(step, segment.payload_size - done);
    done += piece.payload_size;
    EXPECT_LE(piece.payload_size, 1460u);
    if (done < segment.payload_size) piece.flags = static_cast<u8>(piece.flags & ~(kFin | kPsh));
    network.carry(id, flow, piece, bytes.substr(done - piece.payload_size, piece.payload_size));
  } while (done < segment.payload_size);
}

// One direction of a stream: what is written and what has come.
struct Stream {
  Ref<Socket> from, to;
  u64 size, written = 0, read = 0;
  bool end_seen = false, shut = false;
  std::vector<u8> data = {};
  void step(u32 piece) {
    data.resize(piece);
    while (written < size) {
      u32 want = static_cast<u32>(std::min<u64>(piece, size - written));
      for (u32 i = 0; i < want; ++i) data[i] = byte_at(static_cast<u32>(written + i));
      vfs::IoSegment part = vfs::IoBuffer::kernel_segment(data.data(), want);
      vfs::IoBuffer buffer({&part, 1}, vfs::IoBuffer::Memory::kernel);
      auto got = from->send(buffer, Socket::More::no);
      if (!got.ok()) {
        EXPECT_EQ(got.error().code(), EAGAIN);
        break;
      }
      written += *got;
    }
    if (written == size && !shut) {
      shut = true;
      EXPECT_TRUE(from->shutdown(1).ok());
    }
    while (!end_seen) {
      vfs::IoSegment part = vfs::IoBuffer::kernel_segment(data.data(), piece);
      vfs::IoBuffer buffer({&part, 1}, vfs::IoBuffer::Memory::kernel);
      auto got = to->receive(buffer, Socket::Peek::no);
      if (!got.ok()) {
        EXPECT_EQ(got.error().code(), EAGAIN);
        break;
      }
      for (u32 i = 0; i < *got; ++i) ASSERT_EQ(data[i], byte_at(static_cast<u32>(read + i))) << "at " << read + i;
      read += *got;
      if (*got == 0) end_seen = true;
    }
  }
};

struct Outcome {
  bool finished;
  double seconds;
  Tcp::Statistics sender;
};

Outcome transfer(LinkRules rules, u32 seed, u64 size, u32 piece, Tcp::Limits limits = {}) {
  Network network(rules, seed, limits);
  Outcome outcome = {};
  {
    auto listener = network.b.tcp->socket(Family::v4).release();
    EXPECT_TRUE(listener->bind({network.b.own(), 80}).ok());
    EXPECT_TRUE(listener->listen(8).ok());
    auto client = network.a.tcp->socket(Family::v4).release();
    EXPECT_EQ(client->connect({network.b.own(), 80}).error().code(), EINPROGRESS);
    Ref<Socket> server;
    u64 start = network.now;
    auto connected = [&] {
      if (!server) {
        auto got = listener->accept();
        if (got.ok()) server = got.release();
      }
      return server && client->state() == State::established;
    };
    EXPECT_TRUE(network.run(connected, 300'000'000'000));
    if (!server) return outcome;
    Stream there{client, server, size}, back{server, client, size / 3};
    outcome.finished = network.run(
        [&] {
          there.step(piece);
          back.step(piece);
          return there.end_seen && back.end_seen;
        },
        u64{3600} * 1'000'000'000);
    EXPECT_EQ(there.read, size);
    EXPECT_EQ(back.read, size / 3);
    outcome.seconds = static_cast<double>(network.now - start) / 1e9;
    outcome.sender = network.a.tcp->statistics();
    client->close();
    server->close();
    listener->close();
  }
  EXPECT_TRUE(network.run([&] { return network.a.tcp->statistics().sockets + network.b.tcp->statistics().sockets == 0; }, 900'000'000'000));
  for (Host* host : {&network.a, &network.b}) EXPECT_EQ(host->tcp->statistics().memory_used, 0u);
  return outcome;
}

TEST(TcpPair, clean_link_is_filled) {
  auto outcome = transfer({.queue_bytes = 2'000'000}, 1, 3'000'000, 16384);
  EXPECT_TRUE(outcome.finished);
  EXPECT_LT(outcome.seconds, 0.5);
  EXPECT_EQ(outcome.sender.retransmitted, 0u);
}

TEST(TcpPair, segmentation_offload) {
  auto outcome = transfer({.queue_bytes = 2'000'000, .segmentation_max = 65000}, 1, 3'000'000, 65536);
  EXPECT_TRUE(outcome.finished);
  EXPECT_LT(outcome.seconds, 0.5);
}

TEST(TcpPair, small_queue_loses_and_recovers) {
  auto outcome = transfer({.queue_bytes = 60'000, .segmentation_max = 65000}, 2, 2'000'000, 10000);
  EXPECT_TRUE(outcome.finished);
  EXPECT_LT(outcome.seconds, 2.0);
  EXPECT_GT(outcome.sender.fast_retransmits, 0u);
}

class TcpPairLossy : public ::testing::TestWithParam<u32> {};
TEST_P(TcpPairLossy, everything_arrives_once_and_in_order) {
  u32 seed = GetParam();
  LinkRules rules{.loss = 0.01 * (seed % 8), .duplicate = seed % 3 == 0 ? 0.05 : 0, .reorder = seed % 4 == 1 ? 0.1 : 0};
  if (seed % 2 == 0) rules.segmentation_max = 30000;
  auto outcome = transfer(rules, seed, 150'000, 100 + seed * 977);
  EXPECT_TRUE(outcome.finished);
}
INSTANTIATE_TEST_SUITE_P(Seeds, TcpPairLossy, ::testing::Range(0u, 24u));

TEST(TcpPair, heavy_loss_still_ends) { EXPECT_TRUE(transfer({.loss = 0.25}, 5, 50'000, 3000).finished); }

TEST(TcpPair, little_memory_is_enough) {
  Tcp::Limits limits;
  limits.memory = 96 * kKiB;
  EXPECT_TRUE(transfer({.loss = 0.02}, 6, 300'000, 20000, limits).finished);
}

}  // namespace
}  // namespace husk::net::tcp::test
