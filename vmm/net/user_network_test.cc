// The user-mode network's process, driven over its pair by hand-made frames, with real sockets of this host on the other side.
#include "vmm/net/user_network.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <optional>
#include <thread>

#include "vmm/monitor_error.h"
#include "vmm/net/user_endings.h"
#include "vmm/net/user_frame.h"

namespace husk::vmm::net {
namespace {

using Frame = std::vector<u8>;
constexpr u8 kGuestMac[6] = {2, 0, 0, 0, 0, 1};

void put16(Frame& frame, size_t at, u32 value) {
  frame[at] = static_cast<u8>(value >> 8);
  frame[at + 1] = static_cast<u8>(value);
}
void put32(Frame& frame, size_t at, u32 value) {
  put16(frame, at, value >> 16);
  put16(frame, at + 2, value & 0xffff);
}
u32 get16(const Frame& frame, size_t at) { return frame[at] << 8 | frame[at + 1]; }
u32 get32(const Frame& frame, size_t at) { return get16(frame, at) << 16 | get16(frame, at + 2); }
u32 ip4(const char* text) {
  in_addr address{};
  inet_pton(AF_INET, text, &address);
  return ntohl(address.s_addr);
}
sockaddr_in host_address(const char* address, u16 port) {
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = htons(port);
  name.sin_addr.s_addr = htonl(ip4(address));
  return name;
}
u32 sum(const Frame& frame, size_t from, size_t size, u32 start = 0) {
  u32 total = start;
  for (size_t i = 0; i < size; ++i) total += frame[from + i] << (i % 2 == 0 ? 8 : 0);
  while (total >> 16 != 0) total = (total & 0xffff) + (total >> 16);
  return total;
}

Frame ethernet(u32 type, size_t payload) {
  Frame frame(14 + payload);
  memset(frame.data(), 0xff, 6);
  memcpy(frame.data() + 6, kGuestMac, 6);
  put16(frame, 12, type);
  return frame;
}

Frame arp(u32 operation, const char* sender, const char* target) {
  Frame frame = ethernet(0x0806, 28);
  const u8 head[] = {0, 1, 8, 0, 6, 4};
  memcpy(&frame[14], head, sizeof(head));
  put16(frame, 20, operation);
  memcpy(&frame[22], kGuestMac, 6);
  put32(frame, 28, ip4(sender));
  put32(frame, 38, ip4(target));
  return frame;
}

Frame ip_packet(u8 protocol, u32 from, u32 to, const Frame& payload) {
  Frame frame = ethernet(0x0800, 20 + payload.size());
  frame[14] = 0x45;
  put16(frame, 16, static_cast<u32>(20 + payload.size()));
  frame[22] = 64;
  frame[23] = protocol;
  put32(frame, 26, from);
  put32(frame, 30, to);
  put16(frame, 24, ~sum(frame, 14, 20) & 0xffff);
  std::copy(payload.begin(), payload.end(), frame.begin() + 34);
  // TCP's and UDP's checksum: over addresses, protocol, length and everything.
  size_t at = protocol == 6 ? 50 : 40;
  u32 total = sum(frame, 26, 8 + payload.size(), static_cast<u32>(protocol + payload.size()));
  put16(frame, at, ~total & 0xffff);
  return frame;
}

struct Segment {
  u32 from = 0, to = 0, source = 0, destination = 0, sequence = 0, acknowledged = 0, flags = 0;
  std::string text;
};
constexpr u32 kFin = 1, kSyn = 2, kRst = 4, kAck = 16;

Frame make(const Segment& segment) {
  Frame payload(20 + segment.text.size());
  put16(payload, 0, segment.source);
  put16(payload, 2, segment.destination);
  put32(payload, 4, segment.sequence);
  put32(payload, 8, segment.acknowledged);
  payload[12] = 0x50;
  payload[13] = static_cast<u8>(segment.flags);
  put16(payload, 14, 60000);
  std::copy(segment.text.begin(), segment.text.end(), payload.begin() + 20);
  return ip_packet(6, segment.from, segment.to, payload);
}

std::optional<Segment> parse_tcp(const Frame& frame) {
  if (frame.size() < 54 || get16(frame, 12) != 0x0800 || frame[23] != 6) return std::nullopt;
  size_t start = 34 + (frame[46] >> 4) * 4u, end = 14 + get16(frame, 16);
  return Segment{get32(frame, 26), get32(frame, 30), get16(frame, 34), get16(frame, 36),
                 get32(frame, 38), get32(frame, 42), frame[47],        {frame.begin() + start, frame.begin() + end}};
}

// The monitor's side of the pair, and a guest that is as simple as can be.
class Guest {
 public:
  explicit Guest(UserNetworkOptions options = {}) {
    memcpy(options.mac, kGuestMac, 6);
    network = std::make_unique<UserNetwork>(options);
    ports = network->wait_until_open();
    fd = network->device().fd;
  }
  void send(const Frame& frame) { ASSERT_EQ(write(fd, frame.data(), frame.size()), static_cast<ssize_t>(frame.size())); }
  void announce() { send(arp(1, kUserGuest4, kUserGuest4)); }
  std::optional<Frame> receive(int timeout_ms = 3000) {
    pollfd wait{fd, POLLIN, 0};
    if (poll(&wait, 1, timeout_ms) <= 0) return std::nullopt;
    Frame frame(70000);
    ssize_t size = read(fd, frame.data(), frame.size());
    if (size <= 0) return std::nullopt;
    frame.resize(static_cast<size_t>(size));
    return frame;
  }
  // The next TCP segment that satisfies `wanted`; ARP requests are answered meanwhile.
  std::optional<Segment> receive_tcp(const std::function<bool(const Segment&)>& wanted = [](const Segment&) { return true; }) {
    for (int i = 0; i < 50; ++i) {
      auto frame = receive();
      if (!frame) return std::nullopt;
      if (get16(*frame, 12) == 0x0806 && get16(*frame, 20) == 1) send(arp(2, kUserGuest4, kUserGateway4));
      auto segment = parse_tcp(*frame);
      if (segment && wanted(*segment)) return segment;
    }
    return std::nullopt;
  }
  bool process_is_gone(int timeout_ms = 3000) {
    for (int waited = 0; waited < timeout_ms; waited += 10) {
      if (waitpid(network->process(), nullptr, WNOHANG) != 0) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }
  std::unique_ptr<UserNetwork> network;
  std::vector<PublishedPort> ports;
  int fd = -1;
};

class Listener {
 public:
  explicit Listener(const char* address) {
    sockaddr_in name = host_address(address, 0);
    socklen_t size = sizeof(name);
    if (bind(socket_.get(), reinterpret_cast<sockaddr*>(&name), size) != 0 || listen(socket_.get(), 8) != 0) abort();
    getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&name), &size);
    port = ntohs(name.sin_port);
  }
  bool has_client(int timeout_ms) const {
    pollfd wait{socket_.get(), POLLIN, 0};
    return poll(&wait, 1, timeout_ms) == 1;
  }
  int accept_one() const { return accept(socket_.get(), nullptr, nullptr); }
  u16 port;

 private:
  host::FileDescriptor socket_{socket(AF_INET, SOCK_STREAM, 0)};
};

std::string error_of(const UserNetworkOptions& options) {
  try {
    Guest guest(options);
    return "";
  } catch (const MonitorError& error) {
    return error.what();
  }
}

TEST(UserNetwork, gateway_answers_arp) {
  Guest guest;
  guest.send(arp(1, kUserGuest4, kUserGateway4));
  auto reply = guest.receive();
  ASSERT_TRUE(reply);
  EXPECT_EQ(get16(*reply, 12), 0x0806u);
  EXPECT_EQ(get16(*reply, 20), 2u);
  EXPECT_EQ(get32(*reply, 28), ip4(kUserGateway4));
}

TEST(UserNetwork, library_is_not_loaded_for_what_every_machine_says) {
  Guest guest;
  guest.send(arp(1, "0.0.0.0", kUserGuest4));
  guest.send(arp(1, kUserGuest4, kUserGuest4));
  guest.send(Frame(3));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  auto is_loaded = [&] {
    std::ifstream maps("/proc/" + std::to_string(guest.network->process()) + "/maps");
    std::string text((std::istreambuf_iterator<char>(maps)), {});
    return text.find("libslirp") != std::string::npos;
  };
  EXPECT_FALSE(is_loaded());
  guest.send(arp(1, kUserGuest4, kUserGateway4));
  ASSERT_TRUE(guest.receive());
  EXPECT_TRUE(geteuid() != 0 || is_loaded());
}

TEST(UserNetwork, dhcp_offers_the_address) {
  Guest guest;
  Frame dhcp(8 + 240 + 4);
  put16(dhcp, 0, 68);
  put16(dhcp, 2, 67);
  put16(dhcp, 4, static_cast<u32>(dhcp.size()));
  const u8 head[] = {1, 1, 6, 0, 1, 2, 3, 4};
  memcpy(&dhcp[8], head, sizeof(head));
  memcpy(&dhcp[8 + 28], kGuestMac, 6);
  const u8 options[] = {0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255};
  memcpy(&dhcp[8 + 236], options, sizeof(options));
  guest.send(ip_packet(17, 0, ~0u, dhcp));
  auto offer = guest.receive();
  ASSERT_TRUE(offer);
  ASSERT_GT(offer->size(), 14u + 20 + 8 + 20);
  EXPECT_EQ(get16(*offer, 34), 67u);
  EXPECT_EQ(get32(*offer, 42 + 16), ip4(kUserGuest4));
}

// Opens a connection to a port of the host and gives the segment that answered the SYN.
std::optional<Segment> connect_to(Guest& guest, u32 address, u16 port) {
  guest.send(make({ip4(kUserGuest4), address, 4000, port, 100, 0, kSyn, ""}));
  return guest.receive_tcp();
}

TEST(UserNetwork, guest_reaches_the_hosts_loopback_only_when_told_so) {
  Listener listener("127.0.0.1");
  UserNetworkOptions with_loopback;
  with_loopback.host_loopback = true;
  Guest open(with_loopback);
  auto answer = connect_to(open, ip4(kUserGateway4), listener.port);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->flags & (kSyn | kAck | kRst), kSyn | kAck);
  open.send(make({ip4(kUserGuest4), ip4(kUserGateway4), 4000, listener.port, 101, answer->sequence + 1, kAck, "hello"}));
  ASSERT_TRUE(listener.has_client(3000));
  host::FileDescriptor client(listener.accept_one());
  char text[6] = {};
  EXPECT_EQ(recv(client.get(), text, 5, MSG_WAITALL), 5);
  EXPECT_STREQ(text, "hello");
  EXPECT_EQ(::send(client.get(), "world", 5, 0), 5);
  auto data = open.receive_tcp([](const Segment& segment) { return !segment.text.empty(); });
  ASSERT_TRUE(data);
  EXPECT_EQ(data->text, "world");
  client.reset();
  for (const char* address : {kUserGateway4, "127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.2.77", "255.255.255.255"}) {
    Guest closed, with_udp({.ports = {{"127.0.0.1", 0, 53, true}}});
    with_udp.send(make({ip4(kUserGuest4), ip4(address), 4000, listener.port, 100, 0, kSyn, ""}));
    closed.send(make({ip4(kUserGuest4), ip4(address), 4000, listener.port, 100, 0, kSyn, ""}));
    auto reply = closed.receive(100);
    // The last but one is nobody's here, so that NAT asks the host's network for it: there somebody may answer.
    bool outside = address == std::string_view("10.0.2.77");
    EXPECT_TRUE(outside || !reply || !parse_tcp(*reply) || (parse_tcp(*reply)->flags & kRst) != 0) << address;
    EXPECT_FALSE(listener.has_client(20)) << address;
  }
}

// libslirp takes ff02::1 for the host.
TEST(UserNetwork, all_nodes_are_not_the_hosts_loopback) {
  host::FileDescriptor listener(socket(AF_INET6, SOCK_STREAM, 0));
  sockaddr_in6 name{};
  name.sin6_family = AF_INET6;
  name.sin6_addr = in6addr_loopback;
  socklen_t size = sizeof(name);
  if (bind(listener.get(), reinterpret_cast<sockaddr*>(&name), size) != 0 || listen(listener.get(), 8) != 0) GTEST_SKIP() << "no IPv6 here";
  getsockname(listener.get(), reinterpret_cast<sockaddr*>(&name), &size);
  Guest guest({.ports = {{"127.0.0.1", 0, 80, true}}});
  Frame frame = ethernet(0x86dd, 40 + 20);
  put16(frame, 14, 0x6000);
  put16(frame, 18, 20);
  frame[20] = 6, frame[21] = 64;
  inet_pton(AF_INET6, kUserGuest6, &frame[22]);
  inet_pton(AF_INET6, "ff02::1", &frame[38]);
  put16(frame, 54, 5000);
  put16(frame, 56, ntohs(name.sin6_port));
  frame[66] = 0x50, frame[67] = kSyn;
  put16(frame, 68, 60000);
  put16(frame, 70, ~sum(frame, 22, 52, 6 + 20) & 0xffff);
  guest.send(frame);
  pollfd wait{listener.get(), POLLIN, 0};
  EXPECT_EQ(poll(&wait, 1, 300), 0);
}

TEST(UserNetwork, published_port_leads_to_the_guest) {
  Guest guest({.ports = {{"127.0.0.1", 0, 80, false}}});
  ASSERT_NE(guest.ports[0].host_port, 0);
  host::FileDescriptor client(socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in name = host_address("127.0.0.1", guest.ports[0].host_port);
  ASSERT_EQ(connect(client.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
  EXPECT_FALSE(guest.receive(100)) << "said to a guest that has not said anything yet, which may not hear it";
  guest.announce();
  auto syn = guest.receive_tcp();
  ASSERT_TRUE(syn);
  EXPECT_EQ(syn->flags, kSyn);
  EXPECT_EQ(syn->destination, 80u);
  EXPECT_EQ(syn->from, ip4(kUserGateway4));
  guest.send(make({syn->to, syn->from, 80, syn->source, 500, syn->sequence + 1, kSyn | kAck, ""}));
  ASSERT_EQ(::send(client.get(), "ping", 4, 0), 4);
  auto data = guest.receive_tcp([](const Segment& segment) { return !segment.text.empty(); });
  ASSERT_TRUE(data);
  EXPECT_EQ(data->text, "ping");
  guest.send(make({syn->to, syn->from, 80, syn->source, 501, data->sequence + 4, kAck, "pong"}));
  char text[5] = {};
  EXPECT_EQ(recv(client.get(), text, 4, MSG_WAITALL), 4);
  EXPECT_STREQ(text, "pong");
}

TEST(UserNetwork, connection_that_the_client_ended_first_is_forgotten_at_once) {
  Guest guest({.ports = {{"127.0.0.1", 0, 80, false}}});
  guest.announce();
  auto descriptors = [&] {
    std::filesystem::directory_iterator all("/proc/" + std::to_string(guest.network->process()) + "/fd");
    return std::distance(begin(all), end(all));
  };
  sockaddr_in name = host_address("127.0.0.1", guest.ports[0].host_port);
  host::FileDescriptor client(socket(AF_INET, SOCK_STREAM, 0));
  ASSERT_EQ(connect(client.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
  auto syn = guest.receive_tcp();
  ASSERT_TRUE(syn);
  const auto with_it = descriptors();
  auto say = [&](u32 sequence, u32 acknowledged, u32 flags) {
    guest.send(make({syn->to, syn->from, 80, syn->source, sequence, acknowledged, flags, ""}));
  };
  auto is_fin = [](const Segment& segment) { return (segment.flags & kFin) != 0; };
  say(500, syn->sequence + 1, kSyn | kAck);
  client.reset();
  auto fin = guest.receive_tcp(is_fin);
  ASSERT_TRUE(fin);
  say(501, fin->sequence + 1, kAck);
  say(501, fin->sequence + 1, kFin | kAck);
  auto last = guest.receive_tcp([](const Segment& segment) { return segment.acknowledged == 502; });
  ASSERT_TRUE(last);
  for (int waited = 0; waited < 2000 && descriptors() >= with_it; waited += 10) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_LT(descriptors(), with_it);
  EXPECT_FALSE(guest.receive(100)) << "the guest hears nothing of it";
}

TEST(UserEndings, only_what_the_host_ended_first_is_reset) {
  const u32 host = ip4(kUserGateway4), guest = ip4(kUserGuest4);
  auto from_guest = [&](u32 sequence, u32 acknowledged, u32 flags, const char* text = "") {
    return make({guest, host, 80, 4000, sequence, acknowledged, flags, text});
  };
  auto to_guest = [&](u32 sequence, u32 acknowledged, u32 flags, const char* text = "") {
    return make({host, guest, 4000, 80, sequence, acknowledged, flags, text});
  };
  struct Step {
    bool guest_says;
    Frame frame;
  };
  const std::vector<Step> host_first = {{false, to_guest(100, 500, kFin | kAck, "end")},
                                        {true, from_guest(500, 104, kAck)},
                                        {true, from_guest(500, 104, kFin | kAck, "bye")},
                                        {false, to_guest(104, 504, kAck)}};
  const std::vector<Step> crossing = {{false, to_guest(100, 500, kFin | kAck)},
                                      {true, from_guest(500, 100, kFin | kAck)},
                                      {false, to_guest(101, 501, kAck)},
                                      {true, from_guest(501, 101, kAck)}};
  const std::vector<Step> guest_first = {{true, from_guest(500, 100, kFin | kAck)},
                                         {false, to_guest(100, 501, kAck)},
                                         {false, to_guest(100, 501, kFin | kAck)},
                                         {true, from_guest(501, 101, kAck)}};
  auto resets = [](const std::vector<Step>& steps, size_t count) {
    Endings endings;
    std::vector<Segment> found;
    for (size_t i = 0; i < count; ++i) {
      if (steps[i].guest_says) endings.note_from_guest(steps[i].frame);
      else endings.note_to_guest(steps[i].frame);
      while (auto reset = endings.take()) {
        EXPECT_EQ(reset->size(), 54u);
        EXPECT_EQ(sum(*reset, 14, 20), 0xffffu);
        EXPECT_EQ(sum(*reset, 26, 28, 6 + 20), 0xffffu);
        found.push_back(*parse_tcp(*reset));
      }
    }
    return found;
  };
  EXPECT_EQ(resets(host_first, 3).size(), 0u);
  auto one = resets(host_first, 4);
  ASSERT_EQ(one.size(), 1u);
  EXPECT_EQ(one[0].flags, kRst);
  EXPECT_EQ(one[0].sequence, 504u);
  EXPECT_EQ(one[0].source, 80u);
  EXPECT_EQ(one[0].destination, 4000u);
  EXPECT_EQ(resets(crossing, 4).size(), 1u);
  EXPECT_EQ(resets(guest_first, 4).size(), 0u);
}

TEST(UserNetwork, published_udp_port_leads_to_the_guest) {
  Guest guest({.ports = {{"127.0.0.1", 0, 53, true}}});
  guest.announce();
  host::FileDescriptor client(socket(AF_INET, SOCK_DGRAM, 0));
  sockaddr_in name = host_address("127.0.0.1", guest.ports[0].host_port);
  ASSERT_EQ(sendto(client.get(), "query", 5, 0, reinterpret_cast<sockaddr*>(&name), sizeof(name)), 5);
  auto frame = guest.receive();
  ASSERT_TRUE(frame && frame->size() >= 47);
  EXPECT_EQ((*frame)[23], 17);
  EXPECT_EQ(get16(*frame, 36), 53u);
  Frame answer(8 + 3);
  put16(answer, 0, 53);
  put16(answer, 2, get16(*frame, 34));
  put16(answer, 4, 11);
  memcpy(&answer[8], "yes", 3);
  guest.send(ip_packet(17, get32(*frame, 30), get32(*frame, 26), answer));
  pollfd wait{client.get(), POLLIN, 0};
  ASSERT_EQ(poll(&wait, 1, 3000), 1);
  char text[8] = {};
  EXPECT_EQ(recv(client.get(), text, sizeof(text), 0), 3);
  EXPECT_STREQ(text, "yes");
  // Only to the client that asked: not to whatever else listens on the host's loopback.
  host::FileDescriptor other(socket(AF_INET, SOCK_DGRAM, 0));
  sockaddr_in other_name = host_address("127.0.0.1", 0);
  socklen_t size = sizeof(other_name);
  ASSERT_EQ(bind(other.get(), reinterpret_cast<sockaddr*>(&other_name), size), 0);
  getsockname(other.get(), reinterpret_cast<sockaddr*>(&other_name), &size);
  put16(answer, 2, ntohs(other_name.sin_port));
  for (const char* address : {kUserGateway4, "255.255.255.255"}) guest.send(ip_packet(17, ip4(kUserGuest4), ip4(address), answer));
  wait.fd = other.get();
  EXPECT_EQ(poll(&wait, 1, 100), 0);
}

TEST(UserNetwork, ports_that_cannot_be_opened_are_named_with_a_remedy) {
  Listener listener("127.0.0.1");
  EXPECT_EQ(error_of({.ports = {{"127.0.0.1", 0, 1, false}, {"127.0.0.1", listener.port, 6379, false}}}),
            "port " + std::to_string(listener.port) + " of 127.0.0.1 is already in use; choose another with -p HOSTPORT:6379");
  EXPECT_NE(error_of({.ports = {{"203.0.113.77", 0, 80, false}}}).find("no interface of this host has that address"), std::string::npos);
  EXPECT_NE(error_of({.ports = {{"203.0.113.77", 8123, 80, true}}}).find("no interface of this host has that address"), std::string::npos);
}

TEST(UserNetwork, many_clients_at_once_are_all_taken) {
  Guest guest({.ports = {{"127.0.0.1", 0, 80, false}}});
  guest.announce();
  sockaddr_in name = host_address("127.0.0.1", guest.ports[0].host_port);
  std::vector<host::FileDescriptor> clients;
  auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 200; ++i) {
    clients.emplace_back(socket(AF_INET, SOCK_STREAM, 0));
    ASSERT_EQ(connect(clients.back().get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0) << i;
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(900));
}

TEST(UserNetwork, name_server_of_the_host_is_still_known_in_the_jail) {
  // A query towards nothing: that it does not end the process is what counts, 10 s later too, when libslirp looks at the file again.
  Guest guest;
  Frame query(8 + 12);
  put16(query, 0, 5000);
  put16(query, 2, 53);
  put16(query, 4, static_cast<u32>(query.size()));
  guest.send(ip_packet(17, ip4(kUserGuest4), ip4(kUserNameServer4), query));
  guest.send(arp(1, kUserGuest4, kUserGateway4));
  while (auto frame = guest.receive()) {
    if (get16(*frame, 12) == 0x0806 && get16(*frame, 20) == 2) break;
  }
  EXPECT_FALSE(guest.process_is_gone(100));
}

TEST(UserNetwork, no_frame_is_read_with_roots_rights) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  Guest guest;
  auto user = [&] {
    std::ifstream status("/proc/" + std::to_string(guest.network->process()) + "/status");
    std::string word;
    unsigned id = 0;
    while (status >> word && word != "Uid:") continue;
    status >> id;
    return id;
  };
  guest.send(arp(1, "0.0.0.0", kUserGuest4));  // a probe, which every machine sends: not worth loading the library for
  auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (user() == 0 && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(user(), 65534u);
}

TEST(UserNetwork, nothing_can_be_read_from_the_terminal) {
  int terminal = posix_openpt(O_RDWR | O_NOCTTY);
  ASSERT_TRUE(terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0);
  int line = open(ptsname(terminal), O_RDWR | O_NOCTTY), kept = dup(STDERR_FILENO);
  ASSERT_GE(line, 0);
  dup2(line, STDERR_FILENO);
  auto guest = std::make_unique<Guest>(UserNetworkOptions{.ports = {{"127.0.0.1", 0, 80, false}}});
  dup2(kept, STDERR_FILENO);
  std::string process = "/proc/" + std::to_string(guest->network->process());
  auto target = [&](int fd) { return std::filesystem::read_symlink(process + "/fd/" + std::to_string(fd)).string(); };
  EXPECT_EQ(target(1), "/dev/null");
  EXPECT_EQ(target(2), ptsname(terminal));
  for (int fd : {1, 2}) {
    std::ifstream info(process + "/fdinfo/" + std::to_string(fd));
    std::string word, flags;
    while (info >> word && word != "flags:") continue;
    info >> flags;
    EXPECT_EQ(std::stoul(flags, nullptr, 8) & O_ACCMODE, static_cast<unsigned long>(O_WRONLY)) << fd;
  }
  for (int fd : {terminal, line, kept}) close(fd);
}

TEST(UserNetwork, process_ends_with_the_monitors_end_of_the_pair) {
  Guest idle, busy({.ports = {{"127.0.0.1", 0, 80, false}}});
  for (Guest* guest : {&idle, &busy}) {
    pid_t process = guest->network->process();
    guest->network->stop();
    EXPECT_EQ(kill(process, 0), -1);
    EXPECT_EQ(errno, ESRCH);
  }
}

TEST(UserNetwork, stop_does_not_wait_for_a_process_that_does_not_end) {
  Guest guest;
  pid_t process = guest.network->process();
  kill(process, SIGSTOP);
  std::promise<void> stopped;
  std::thread rescue([process, result = stopped.get_future()] {
    bool in_time = result.wait_for(std::chrono::seconds(10)) == std::future_status::ready;
    EXPECT_TRUE(in_time);
    if (!in_time) kill(process, SIGKILL);
  });
  guest.network->stop();
  stopped.set_value();
  rescue.join();
  kill(process, SIGKILL);
  waitpid(process, nullptr, 0);
}

TEST(UserNetwork, process_ends_with_a_killed_monitor) {
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  pid_t monitor = fork();
  if (monitor == 0) {
    alarm(60);
    Guest guest({.ports = {{"127.0.0.1", 0, 80, false}}});
    pid_t process = guest.network->process();
    (void)!write(pipes[1], &process, sizeof(process));
    pause();
  }
  close(pipes[1]);
  pid_t process = 0;
  ASSERT_EQ(read(pipes[0], &process, sizeof(process)), static_cast<ssize_t>(sizeof(process)));
  kill(monitor, SIGKILL);
  waitpid(monitor, nullptr, 0);
  EXPECT_EQ(waitpid(process, nullptr, 0), process);
}

TEST(UserNetwork, rubbish_does_not_stop_the_service) {
  Guest guest;
  u32 state = 1;
  for (int i = 0; i < 5000; ++i) {
    Frame frame(1 + (state >> 8) % 200);
    for (u8& byte : frame) byte = static_cast<u8>((state = state * 1664525 + 1013904223) >> 24);
    if (frame.size() > 34) {
      put16(frame, 12, i % 2 != 0 ? 0x0800 : 0x86dd);
      frame[14] = i % 2 != 0 ? 0x45 : 0x60;
      if (i % 2 != 0) put16(frame, 24, 0), put16(frame, 24, ~sum(frame, 14, 20) & 0xffff);
    }
    pollfd wait{guest.fd, POLLOUT, 0};
    poll(&wait, 1, 1000);
    (void)!write(guest.fd, frame.data(), frame.size());
    while (guest.receive(0)) {}
  }
  guest.send(arp(1, kUserGuest4, kUserGateway4));
  bool answered = false;
  for (int i = 0; i < 1000 && !answered; ++i) {
    auto frame = guest.receive();
    if (!frame) break;
    answered = get16(*frame, 12) == 0x0806 && get16(*frame, 20) == 2;
  }
  EXPECT_TRUE(answered);
}

TEST(UserFrame, loopback_guard_knows_all_names_of_the_host) {
  LoopbackGuard guard;
  Frame datagram(8 + 4);
  put16(datagram, 0, 5000);
  put16(datagram, 2, 53);
  Frame query = ip_packet(17, ip4(kUserGuest4), ip4(kUserNameServer4), datagram),
        to_host = ip_packet(17, ip4(kUserGuest4), ip4(kUserGateway4), datagram);
  Frame other = ethernet(0x86dd, 40 + 8), name_server6;
  put16(other, 14, 0x6000);
  other[20] = 17;
  for (size_t at : {22, 38}) put32(other, at, 0xfd687573), put16(other, at + 4, 0x6b00);
  put16(other, 56, 53);
  other[53] = 3;
  name_server6 = other;
  other[45 + 4] = 1;
  EXPECT_TRUE(guard.allows_from_guest(name_server6));
  EXPECT_FALSE(guard.allows_from_guest(other));
  Frame all_nodes = other;
  for (size_t at = 38; at < 54; ++at) all_nodes[at] = 0;
  put16(all_nodes, 38, 0xff02);
  all_nodes[53] = 1;
  EXPECT_FALSE(guard.allows_from_guest(all_nodes));
  EXPECT_TRUE(guard.allows_from_guest(query));
  EXPECT_FALSE(guard.allows_from_guest(to_host));
  put16(datagram, 0, 53);
  put16(datagram, 2, 5000);
  guard.note_to_guest(ip_packet(17, ip4(kUserNameServer4), ip4(kUserGuest4), datagram));
  EXPECT_FALSE(guard.allows_from_guest(to_host));
}

TEST(UserFrame, loopback_inside_any_address_is_dropped) {
  Frame frame = ethernet(0x86dd, 40);
  frame[14 + 8] = 0xfd;
  EXPECT_EQ(judge_frame(frame), FrameUse::drop);  // ::
  frame[14 + 39] = 1;
  EXPECT_EQ(judge_frame(frame), FrameUse::drop);  // ::1
  frame[14 + 34] = frame[14 + 35] = 0xff;
  frame[14 + 36] = 127;
  EXPECT_EQ(judge_frame(frame), FrameUse::drop);  // ::ffff:127.0.0.1
  frame[14 + 24] = 0x20;
  EXPECT_EQ(judge_frame(frame), FrameUse::forward);
  for (size_t size = 0; size < frame.size(); ++size) judge_frame({frame.data(), size});
}

}  // namespace
}  // namespace husk::vmm::net
