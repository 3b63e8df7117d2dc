// A stack that stands still, for tests of what tells programs about the network: loopback, one card, a gateway, one listener.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernel/net/stack.h"

namespace husk::linux {

class FakeTcp final : public net::tcp::Tcp {
 public:
  Result<Ref<net::tcp::Socket>> socket(net::Family) override { return Error(ENOSYS); }
  void input(const net::Flow&, const net::tcp::Segment&, net::tcp::PacketPtr, u32) override {}
  void network_error(const net::Flow&, net::tcp::SeqNum, int, u16) override {}
  void run() override {}
  u64 next_deadline_ns() const override { return ~u64{0}; }
  Statistics statistics() const override {
    Statistics result{};
    result.sockets = 2;
    result.in_segments = 7;
    return result;
  }
  void visit(Visitor& visitor) const override {
    net::tcp::Information information{};
    information.state = net::tcp::State::listen;
    visitor.visit({{net::IpAddress::v4(0, 0, 0, 0), 6379, 0}, {net::IpAddress::v4(0, 0, 0, 0), 0, 0}}, information);
    visitor.visit({{net::IpAddress{}, 80, 0}, {net::IpAddress{}, 0, 0}}, information);
  }
};

class FakeStack final : public net::Stack {
 public:
  FakeStack() {
    interfaces_[0] = {1, "lo", {}, 65536, true, true, {}};
    interfaces_[1] = {2, "eth0", {2, 0, 0, 0, 0, 9}, 1500, false, true, {}};
    interfaces_[1].statistics.packets_received = 5;
    net::Route direct;
    direct.network = net::IpAddress::v4(10, 1, 2, 0);
    direct.prefix_bits = 24;
    direct.interface = 2;
    net::Route by_gateway;
    by_gateway.network = net::IpAddress::v4(0, 0, 0, 0);
    by_gateway.has_gateway = true;
    by_gateway.gateway = net::IpAddress::v4(10, 1, 2, 1);
    by_gateway.interface = 2;
    routes_ = {direct, by_gateway};
  }
  Result<u32> add_interface(packet::NetDevice&, std::string_view, net::Configure, std::string_view) override { return Error(ENOSYS); }
  Result<void> add_address(u32, const net::IpAddress&, u8) override { return Error(ENOSYS); }
  Result<void> add_route(const net::Route&) override { return Error(ENOSYS); }
  net::tcp::Tcp& tcp() override { return tcp_; }
  Result<Ref<net::udp::Socket>> udp_socket(net::Family) override { return Error(ENOSYS); }
  Result<Ref<net::udp::Socket>> ping_socket(net::Family) override { return Error(ENOSYS); }
  bool run() override { return false; }
  u64 next_deadline_ns() const override { return ~u64{0}; }
  bool configured() const override { return true; }
  Result<size_t> interfaces(std::span<net::InterfaceStatus> out) const override {
    std::copy_n(interfaces_, std::min<size_t>(2, out.size()), out.begin());
    return size_t{2};
  }
  size_t addresses(u32 interface, std::span<net::InterfaceAddress> out) const override {
    out[0] = {}, out[1] = {};
    out[0].prefix_bits = interface == 1 ? 8 : 24;
    out[0].address = interface == 1 ? net::IpAddress::v4(127, 0, 0, 1) : net::IpAddress::v4(10, 1, 2, 3);
    out[1].prefix_bits = interface == 1 ? 128 : 64;
    out[1].address = interface == 1 ? net::IpAddress{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}} : net::IpAddress{{0xfe, 0x80, 9}};
    return 2;
  }
  size_t routes(std::span<net::Route> out) const override {
    std::copy_n(routes_.begin(), std::min(routes_.size(), out.size()), out.begin());
    return routes_.size();
  }
  size_t neighbours(std::span<net::Neighbour> out) const override {
    out[0] = {net::IpAddress::v4(10, 1, 2, 1), {2, 0, 0, 0, 0, 1}, 2, true};
    return 1;
  }
  size_t name_servers(std::span<net::IpAddress>) const override { return 0; }
  std::string_view search_domain() const override { return ""; }
  Statistics statistics() const override { return Statistics{}; }
  void visit_udp(UdpVisitor&) const override {}

 private:
  FakeTcp tcp_;
  net::InterfaceStatus interfaces_[2];
  std::vector<net::Route> routes_;
};

}  // namespace husk::linux
