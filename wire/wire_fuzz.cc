// Any bytes as a frame, and as the input of each parser alone: all that a view gives is read, and what builders make of it must parse to the same.
#include <stdint.h>
#include <stdlib.h>

#include <vector>

#include "wire/arp.h"
#include "wire/dhcp.h"
#include "wire/icmpv6.h"
#include "wire/ipv6.h"
#include "wire/tcp.h"
#include "wire/udp.h"

namespace {

using namespace husk;
using namespace husk::wire;
using Span = std::span<const u8>;

u64 sink;
void touch(Span bytes) {
  for (u8 byte : bytes) sink += byte;
  asm volatile("" : "+m"(sink));
}
template <typename T>
void touch_struct(const T* value) {
  touch({reinterpret_cast<const u8*>(value), sizeof(T)});
}
void check(bool condition) {
  if (!condition) abort();
}

void see_tcp(Span bytes) {
  auto tcp = Tcp::parse(bytes);
  if (!tcp) return;
  touch_struct(tcp->header), touch(tcp->options), touch(tcp->payload);
  TcpOptions options = tcp->parse_options();
  check(options.sack_count <= 4 && options.window_scale <= 14);
  u8 made[kTcpOptionsMax];
  size_t size = build_tcp_options(options, made);
  TcpOptions again = Tcp::parse_tcp_options({made, size});
  check(size % 4 == 0 && again.sack_count <= options.sack_count);  // padding may cost a block
  for (size_t i = again.sack_count; i < options.sack_count; ++i) options.sack[i] = {};
  options.sack_count = again.sack_count;
  check(again == options);
}

void see_udp(Span bytes) {
  auto udp = Udp::parse(bytes);
  if (!udp) return;
  check(udp->payload.size() == udp->payload_size);
  touch_struct(udp->header), touch(udp->payload);
}

void see_dhcp(Span bytes) {
  auto dhcp = Dhcp::parse(bytes);
  if (!dhcp) return;
  touch_struct(dhcp->header);
  std::vector<u8> made(8192), copied(512);
  DhcpBuilder builder(made, kDhcpDiscover, dhcp->header->transaction, dhcp->header->client_mac);
  std::vector<DhcpOption> options;
  auto reader = dhcp->reader();
  while (auto option = reader.next()) {
    touch(option->data);
    check(option->code != kDhcpPad && option->code != kDhcpEnd);
    if (option->code == kDhcpOverload) continue;
    options.push_back(*option);
    builder.add(option->code, option->data);
    dhcp->copy(option->code, copied);
    DhcpRouteReader routes(option->data);
    while (auto route = routes.next()) touch_struct(&*route);
  }
  size_t size = builder.finish();
  if (size == 0) return;
  auto again = Dhcp::parse({made.data(), size});
  check(again.has_value());
  auto second = again->reader();
  check(second.next()->code == kDhcpMessageType);
  for (auto& option : options) {
    auto other = second.next();
    check(other && other->code == option.code && std::equal(other->data.begin(), other->data.end(), option.data.begin(), option.data.end()));
  }
  check(!second.next());
}

void see_icmpv6(Span bytes) {
  if (auto icmp = Icmpv6::parse(bytes)) touch_struct(icmp->header), touch(icmp->body), sink = icmp->parameter();
  if (auto neighbour = Neighbour::parse(bytes)) {
    touch_struct(neighbour->message);
    if (neighbour->link_address != nullptr) touch({neighbour->link_address, 6});
  }
  if (auto solicitation = RouterSolicitation::parse(bytes); solicitation && solicitation->link_address) touch({solicitation->link_address, 6});
  auto advertisement = RouterAdvertisement::parse(bytes);
  if (!advertisement) return;
  touch_struct(advertisement->message);
  NdpOptionReader reader(advertisement->options);
  while (auto option = reader.next()) {
    touch(option->bytes), touch({option->link_address(), 6});
    sink = option->mtu();
    if (auto* prefix = NdpPrefix::parse(*option)) touch_struct(prefix);
    if (auto servers = NdpRdnss::parse(*option)) {
      for (size_t i = 0; i < servers->count(); ++i) touch({servers->address(i), 16});
    }
    if (auto names = NdpDnssl::parse(*option)) {
      char name[300];
      touch({reinterpret_cast<u8*>(name), names->first_name(name)});
    }
  }
  check(!reader.malformed());
}

void see_upper(u8 protocol, Span bytes);

void see_ipv4(Span bytes, int depth) {
  auto ip = Ipv4::parse(bytes);
  if (!ip) return;
  check(ip->payload.size() == ip->payload_size);
  touch(ip->header_bytes()), touch(ip->options), touch(ip->payload);
  sink = ip->checksum_valid() + ip->fragment_offset() + ip->has_source_route();
  auto part = Ipv4::parse(bytes.first(ip->header_size), bytes.size());
  check(part && part->payload.empty() && part->payload_size == ip->payload_size);
  see_upper(ip->header->protocol, ip->payload);
  if (auto icmp = Icmp::parse(ip->payload); icmp && icmp->is_error() && depth > 0) see_ipv4(icmp->body, depth - 1);
}

void see_ipv6(Span bytes) {
  auto ip = Ipv6::parse(bytes);
  if (!ip) return;
  check(ip->payload.size() == ip->payload_size);
  touch_struct(ip->header), touch(ip->payload);
  Ipv6Walk walk = walk_ipv6(*ip);
  check(walk.offset <= 40 + ip->payload_size && walk.next_header_at < bytes.size() && walk.pointer < bytes.size());
  if (walk.end == Ipv6Walk::End::fragment) touch_struct(walk.fragment);
  if (walk.end == Ipv6Walk::End::upper) see_upper(walk.protocol, ip->payload.subspan(walk.offset - 40));
}

void see_upper(u8 protocol, Span bytes) {
  if (protocol == kProtocolTcp) see_tcp(bytes);
  if (protocol == kProtocolIcmpv6) see_icmpv6(bytes);
  if (protocol != kProtocolUdp) return;
  see_udp(bytes);
  if (auto udp = Udp::parse(bytes)) see_dhcp(udp->payload);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A copy of exactly this size, so that a byte too many is seen.
  std::vector<u8> copy(data, data + size);
  copy.shrink_to_fit();
  Span bytes(copy);
  if (auto frame = Ethernet::parse(bytes)) {
    touch_struct(frame->header), touch(frame->payload);
    if (frame->type() == kEtherTypeIpv4) see_ipv4(frame->payload, 1);
    if (frame->type() == kEtherTypeIpv6) see_ipv6(frame->payload);
  }
  for (size_t offset : {size_t{0}, size_t{14}}) {
    if (offset > bytes.size()) break;
    Span from = bytes.subspan(offset);
    if (auto arp = Arp::parse(from)) touch_struct(arp->packet);
    if (auto icmp = Icmp::parse(from)) touch_struct(icmp->header), touch(icmp->body);
    see_ipv4(from, 1), see_ipv6(from), see_tcp(from), see_udp(from), see_dhcp(from), see_icmpv6(from);
  }
  Checksum split, whole;
  size_t middle = size == 0 ? 0 : data[0] % size;
  split.add(bytes.first(middle)), split.add(bytes.subspan(middle)), whole.add(bytes);
  check(split.folded() == whole.folded());
  return 0;
}
