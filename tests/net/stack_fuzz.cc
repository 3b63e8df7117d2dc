// The whole stack with open sockets, fed with arbitrary frames, times and calls: a TCP listener, connections both ways, UDP, ping; addresses by DHCP and SLAAC.
//
// The input is a list of operations (see step()). To get past checksums and sequence numbers without luck, frames may come as verified by the device, and
// segments may be said relative to what the stack sent last. The peer behind the device answers ARP by itself.
#include <stdint.h>

#include <algorithm>
#include <deque>
#include <map>
#include <vector>

#include "kernel/net/stack.h"
#include "kernel/vfs/io.h"
#include "tests/net/nic.h"
#include "wire/arp.h"
#include "wire/ipv4.h"
#include "wire/tcp.h"

namespace {

using namespace husk;
using simulation::Bytes;
using simulation::Frame;

constexpr u8 kMac[6] = {2, 0, 0, 0, 0, 1}, kPeerMac[6] = {2, 0, 0, 0, 0, 2};
constexpr u8 kAddress[4] = {10, 0, 0, 1}, kPeer[4] = {10, 0, 0, 2};
constexpr u8 kFin = 1, kSyn = 2, kAck = 16;

struct Seen {  // of a flow, by the stack's port and the peer's
  u32 next = 0, acknowledged = 0;
};

class Device final : public packet::NetDevice {
 public:
  Device() {
    memcpy(properties_.mac, kMac, 6);
    properties_.checksum = true;
  }
  const Properties& properties() const override { return properties_; }
  packet::PacketPtr receive() override {
    if (received.empty()) return nullptr;
    auto packet = simulation::packet_of(received.front(), slice);
    received.pop_front();
    return packet;
  }
  bool transmit(packet::PacketPtr& packet) override {
    Frame frame = simulation::frame_of(*packet);
    packet.reset();
    auto ethernet = wire::Ethernet::parse(frame.bytes);
    HUSK_ASSERT(ethernet && frame.bytes.size() <= 1514);
    if (ethernet->type() == wire::kEtherTypeArp) answer_arp(*ethernet);
    if (ethernet->type() == wire::kEtherTypeIpv4) see(ethernet->payload);
    return true;
  }
  void flush() override {}
  bool room_again() override { return false; }
  Statistics statistics() const override { return {}; }

  std::deque<Frame> received;
  std::map<std::pair<u16, u16>, Seen> flows;
  u32 slice = 0;

 private:
  void answer_arp(const wire::Ethernet& ethernet) {
    auto arp = wire::Arp::parse(ethernet.payload);
    HUSK_ASSERT(arp);
    if (!arp->request() || memcmp(arp->packet->target_address, kPeer, 4) != 0) return;
    Bytes reply(60);
    wire::build_ethernet(reply, kMac, kPeerMac, wire::kEtherTypeArp);
    wire::build_arp(std::span(reply).subspan(14), wire::kArpReply, kPeerMac, kPeer, kMac, arp->packet->sender_address);
    received.push_back({reply});
  }
  void see(std::span<const u8> bytes) {
    auto ip = wire::Ipv4::parse(bytes);
    HUSK_ASSERT(ip && ip->checksum_valid());
    if (ip->header->protocol != wire::kProtocolTcp || ip->is_fragment()) return;
    auto tcp = wire::Tcp::parse(ip->payload);
    HUSK_ASSERT(tcp);
    u8 flags = tcp->header->flags;
    u32 length = static_cast<u32>(tcp->payload.size()) + ((flags & kSyn) != 0) + ((flags & kFin) != 0);
    flows[{tcp->header->source_port, tcp->header->destination_port}] = {tcp->header->sequence + length, tcp->header->acknowledgement};
  }
  Properties properties_;
};

class Input {
 public:
  Input(const u8* data, size_t size) : rest_(data, size) {}
  bool empty() const { return rest_.empty(); }
  u8 byte() {
    if (rest_.empty()) return 0;
    u8 value = rest_[0];
    rest_ = rest_.subspan(1);
    return value;
  }
  u16 word() {
    u8 high = byte();
    return static_cast<u16>(high << 8 | byte());
  }
  std::span<const u8> bytes(size_t count) {
    auto result = rest_.first(std::min(count, rest_.size()));
    rest_ = rest_.subspan(result.size());
    return result;
  }

 private:
  std::span<const u8> rest_;
};

class Machine final : public net::Environment {
 public:
  Machine() {
    net::Stack::Limits limits;
    limits.tcp.memory = kMiB, limits.tcp.half_open = 8, limits.neighbours = 32, limits.udp_memory = 256 * kKiB;
    stack_ = net::Stack::create(*this, limits).release();
    u32 index = stack_->add_interface(device_, "eth0", net::Configure::automatically, "fuzz").value_or(0);
    HUSK_ASSERT(stack_->add_address(index, net::IpAddress::v4(kAddress), 24).ok());
    listener_ = socket();
    HUSK_ASSERT(listener_->bind({net::IpAddress::v4(0, 0, 0, 0), 80}).ok() && listener_->listen(4).ok());
    udp_ = stack_->udp_socket(net::Family::v4).release();
    HUSK_ASSERT(udp_->bind({net::IpAddress::v4(0, 0, 0, 0), 53}).ok());
    udp6_ = stack_->udp_socket(net::Family::v6).release();
    HUSK_ASSERT(udp6_->bind({{}, 54}).ok());
    ping_ = stack_->ping_socket(net::Family::v4).release();
    connect_both();
  }
  ~Machine() {
    for (auto& connection : connections_) connection->close();
    listener_->close(), udp_->close(), udp6_->close(), ping_->close();
    run();
    connections_.clear();
    listener_ = nullptr;
    advance(600'000);
    stack_.reset();
  }

  void step(Input& input) {
    u8 operation = input.byte();
    switch (operation & 7) {
      case 0:    // a frame as it is
      case 1: {  // the same, checksums right
        device_.slice = (operation & 8) != 0 ? 256 : 0;
        auto bytes = input.bytes(input.word() % 1600);
        Frame frame{{bytes.begin(), bytes.end()}};
        if (frame.bytes.empty()) break;
        if ((operation & 7) == 1) mend(frame);
        device_.received.push_back(std::move(frame));
        break;
      }
      case 2: segment(input); break;
      case 3: advance(input.word() * ((operation & 8) != 0 ? 100u : 1u)); break;
      case 4: call(input, operation >> 3); break;
      case 5: {  // a datagram or echo request with right checksums
        Frame frame;
        frame.bytes.assign(34, 0);
        auto payload = input.bytes(input.word() % 1400);
        frame.bytes.insert(frame.bytes.end(), payload.begin(), payload.end());
        head(frame.bytes, (operation & 8) != 0 ? wire::kProtocolUdp : wire::kProtocolIcmp);
        frame.checksum = packet::Checksum::verified;
        device_.received.push_back(std::move(frame));
        break;
      }
      default: run(); break;
    }
    if (device_.received.size() > 16) run();
  }
  void run() {
    for (u32 i = 0; i < 10'000; ++i) {
      if (!stack_->run()) return;
    }
    HUSK_ASSERT(!"the stack runs for ever");
  }

  u64 now_ns() override { return now_; }
  void random(void* to, size_t size) override {
    for (size_t i = 0; i < size; ++i) {
      chance_ = chance_ * 6364136223846793005 + 1442695040888963407;
      static_cast<u8*>(to)[i] = static_cast<u8>(chance_ >> 56);
    }
  }
  void names_changed() override {
    net::IpAddress servers[8];
    (void)stack_->name_servers(servers);
    (void)stack_->search_domain();
  }

 private:
  Ref<net::tcp::Socket> socket() { return stack_->tcp().socket(net::Family::v4).release(); }
  void head(Bytes& bytes, u8 protocol) {
    wire::build_ethernet(bytes, kMac, kPeerMac, wire::kEtherTypeIpv4);
    wire::build_ipv4(std::span(bytes).subspan(14), {0, 64, protocol, 0, 0, kPeer, kAddress}, static_cast<u32>(bytes.size() - 34));
  }
  // The IPv4 header's sum; the rest is the device's word. An address or port of ours is not lucky enough either: kept as they are.
  void mend(Frame& frame) {
    frame.checksum = packet::Checksum::verified;
    auto* ip = wire::place_at<wire::Ipv4Header>(frame.bytes, 14);
    if (ip == nullptr || wire::load_be16(&frame.bytes[12]) != wire::kEtherTypeIpv4) return;
    size_t size = std::min<size_t>((ip->version_and_size & 15u) * 4, frame.bytes.size() - 14);
    ip->checksum = 0;
    ip->checksum = wire::checksum_of(std::span(frame.bytes).subspan(14, size));
  }
  void push_segment(u16 port, u16 peer_port, u32 sequence, u32 acknowledgement, u8 flags, u16 window, std::span<const u8> options,
                    std::span<const u8> payload) {
    Frame frame;
    frame.bytes.assign(54, 0);
    frame.bytes.insert(frame.bytes.end(), options.begin(), options.end());
    frame.bytes.resize(54 + align_up(options.size(), 4));
    u8 words = static_cast<u8>((frame.bytes.size() - 34) / 4);
    frame.bytes.insert(frame.bytes.end(), payload.begin(), payload.end());
    *wire::place_at<wire::TcpHeader>(frame.bytes, 34) = {peer_port, port, sequence, acknowledgement, static_cast<u8>(words << 4), flags,
                                                         window,    0,    0};
    head(frame.bytes, wire::kProtocolTcp);
    frame.checksum = packet::Checksum::verified;
    device_.received.push_back(std::move(frame));
  }
  // A connection to the listener and one from here, so that inputs need not begin with two handshakes.
  void connect_both() {
    push_segment(80, 1000, 7000, 0, kSyn, 65535, {}, {});
    run();
    push_segment(80, 1000, 7001, device_.flows[{80, 1000}].next, kAck, 65535, {}, {});
    connections_.push_back(socket());
    net::Endpoint peer{net::IpAddress::v4(kPeer), 2000};
    HUSK_ASSERT(connections_[0]->connect(peer).error().code() == EINPROGRESS);
    run();
    u16 port = connections_[0]->local().port;
    const u8 options[] = {2, 4, 5, 0xb4, 4, 2, 3, 3, 7};
    push_segment(port, 2000, 9000, device_.flows[{port, 2000}].next, kSyn | kAck, 65535, options, {});
    run();
    accept();
    HUSK_ASSERT(connections_.size() == 2);
  }
  void accept() {
    if (auto made = listener_->accept(); made.ok()) connections_.push_back(made.release());
  }
  // Relative to what the stack sent last on a flow.
  void segment(Input& input) {
    u8 which = input.byte();
    auto flow = device_.flows.begin();
    std::advance(flow, which % device_.flows.size());
    i8 sequence = static_cast<i8>(input.byte()), acknowledgement = static_cast<i8>(input.byte());
    i32 scale = (which & 0x80) != 0 ? 1000 : 1;
    u8 flags = input.byte();
    u16 window = input.word();
    auto options = input.bytes(input.byte() % 41);
    auto payload = input.bytes(input.word() % 1400);
    push_segment(flow->first.first, flow->first.second, flow->second.acknowledged + static_cast<u32>(sequence * scale),
                 flow->second.next + static_cast<u32>(acknowledgement * scale), flags, window, options, payload);
  }
  void advance(u64 ms) {
    u64 end = now_ + ms * 1'000'000;
    run();
    for (u32 i = 0; i < 2000; ++i) {
      u64 next = stack_->next_deadline_ns();
      if (next > end) break;
      now_ = std::max(now_ + 1000, next);
      run();
    }
    now_ = std::max(now_, end);
  }
  void call(Input& input, u8 what) {
    static u8 memory[32 * 1024];
    vfs::IoSegment piece = vfs::IoBuffer::kernel_segment(memory, input.word() % sizeof(memory));
    vfs::IoBuffer buffer({&piece, 1}, vfs::IoBuffer::Memory::kernel);
    auto& connection = *connections_[input.byte() % connections_.size()];
    net::Endpoint peer{net::IpAddress::v4(kPeer), 5000};
    switch (what % 16) {
      case 0: (void)connection.send(buffer, net::tcp::Socket::More::no).ok(); break;
      case 1: (void)connection.send(buffer, net::tcp::Socket::More::yes).ok(); break;
      case 2: (void)connection.receive(buffer, net::tcp::Socket::Peek::no).ok(); break;
      case 3: (void)connection.receive(buffer, net::tcp::Socket::Peek::yes).ok(); break;
      case 4: (void)connection.shutdown(input.byte() % 3).ok(); break;
      case 5: (void)connection.discard(input.byte()).ok(); break;
      case 6: accept(); break;
      case 7: (void)udp_->send(buffer, &peer, nullptr).ok(); break;
      case 8: (void)udp_->receive(buffer, net::udp::Socket::Peek::no).ok(); break;
      case 9: (void)udp6_->receive(buffer, net::udp::Socket::Peek::no).ok(); break;
      case 10: (void)ping_->send(buffer, &peer, nullptr).ok(); break;
      case 11: (void)ping_->receive(buffer, net::udp::Socket::Peek::no).ok(); break;
      case 12: set_options(connection, input); break;
      case 13:
        if (connections_.size() < 8) connections_.push_back(socket()), (void)connections_.back()->connect(peer).ok();
        break;
      case 14: close_one(input); break;
      default: (void)connection.information(), (void)connection.events(), (void)connection.take_error(), (void)connection.unsent_bytes(); break;
    }
  }
  void set_options(net::tcp::Socket& connection, Input& input) {
    net::tcp::Options options = connection.options();
    u8 bits = input.byte();
    options.no_delay = bits & 1, options.cork = bits & 2, options.quick_ack = bits & 4, options.keep_alive = bits & 8, options.linger = bits & 16;
    options.keep_idle_s = input.byte() + 1u, options.keep_interval_s = 1, options.keep_count = 3;
    options.send_buffer = input.word(), options.receive_buffer = input.word();
    options.user_timeout_ms = input.word();
    connection.set_options(options);
  }
  void close_one(Input& input) {
    if (connections_.size() < 2) return;
    size_t index = input.byte() % connections_.size();
    connections_[index]->close();
    connections_.erase(connections_.begin() + static_cast<long>(index));
  }

  u64 now_ = 1'000'000'000'000, chance_ = 1;
  Device device_;
  Owned<net::Stack> stack_;
  Ref<net::tcp::Socket> listener_;
  Ref<net::udp::Socket> udp_, udp6_, ping_;
  std::vector<Ref<net::tcp::Socket>> connections_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Machine machine;
  Input input(data, size);
  for (u32 steps = 0; !input.empty() && steps < 500; ++steps) machine.step(input);
  return 0;
}
