// See netlink_messages.h. What changes something is refused (EPERM): addresses and routes are the host's matter.
#undef linux
#include "kernel/linux/netlink_messages.h"

#include <linux/if.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <optional>

#include "kernel/linux/network_info.h"

namespace husk::linux {
namespace {

constexpr u8 kAnyFamily = 0, kFamily4 = 2, kFamily6 = 10;  // AF_UNSPEC, AF_INET, AF_INET6
constexpr size_t kAlign = 4;
constexpr int kOperUp = 6, kOperUnknown = 0;

u8 family_of(const net::IpAddress& address) { return address.is_v4() ? kFamily4 : kFamily6; }
const u8* bytes_of(const net::IpAddress& address) { return address.is_v4() ? address.v4_bytes() : address.bytes; }
size_t size_of(const net::IpAddress& address) { return address.is_v4() ? 4 : 16; }
bool asked_for(u8 asked, u8 family) { return asked == kAnyFamily || asked == family; }

}  // namespace

// --- writing --------------------------------------------------------------------------------------------------------------------

Result<void> NetlinkAnswer::append(const void* data, size_t size) {
  Vec<u8>& bytes = datagrams.back();
  size_t at = bytes.size();
  TRY(bytes.resize(at + align_up(size, kAlign)));
  if (size > 0) memcpy(bytes.data() + at, data, size);
  return {};
}

Result<void> NetlinkAnswer::begin(u16 type, u16 flags, u32 sequence, u32 port, const void* body, size_t size) {
  constexpr size_t kMessageMax = 512;  // of those that are made here
  if (datagrams.empty() || datagrams.back().size() + kMessageMax > kDatagramMax) TRY(datagrams.push_back(Vec<u8>()));
  message_start_ = datagrams.back().size();
  nlmsghdr header{0, type, flags, sequence, port};
  TRY(append(&header, sizeof(header)));
  return append(body, size);
}

Result<void> NetlinkAnswer::attribute(u16 type, const void* data, size_t size) {
  rtattr header{static_cast<u16>(sizeof(rtattr) + size), type};
  TRY(append(&header, sizeof(header)));
  return append(data, size);
}

void NetlinkAnswer::end() {
  Vec<u8>& bytes = datagrams.back();
  u32 length = static_cast<u32>(bytes.size() - message_start_);
  memcpy(bytes.data() + message_start_, &length, sizeof(length));
}

// --- answering ------------------------------------------------------------------------------------------------------------------

namespace {

struct Request {
  nlmsghdr header;
  std::span<const u8> body;  // behind the header
  u8 family = kAnyFamily;
  bool dump = false;
};

class Answerer {
 public:
  Answerer(const net::Stack& stack, u32 port, NetlinkAnswer& out) : stack_(stack), port_(port), out_(out) {}
  Result<void> answer(const Request& request);

 private:
  template <typename Body>
  Result<void> begin(u16 type, const Body& body) {
    return out_.begin(type, request_->dump ? NLM_F_MULTI : 0, request_->header.nlmsg_seq, port_, &body, sizeof(body));
  }
  Result<void> address(u16 type, const net::IpAddress& value) { return out_.attribute(type, bytes_of(value), size_of(value)); }
  Result<void> done();
  Result<void> error(int code);
  Result<void> dispatch();
  Result<void> links();
  Result<void> link(const net::InterfaceStatus& status);
  Result<void> addresses();
  Result<void> one_address(const net::InterfaceStatus& status, const net::InterfaceAddress& own);
  Result<void> routes();
  Result<void> route(const net::Route& route, u8 type, const net::IpAddress* destination, const net::IpAddress* source);
  Result<void> route_to(const net::IpAddress& destination);
  template <typename T>
  std::optional<T> body() const;
  std::span<const u8> attribute_of(size_t body_size, u16 type) const;
  const net::IpAddress* source_on(u32 interface, bool v4);

  const net::Stack& stack_;
  u32 port_;
  NetlinkAnswer& out_;
  const Request* request_ = nullptr;
  bool said_error_ = false;
  net::IpAddress source_;
};

template <typename T>
std::optional<T> Answerer::body() const {
  T value;
  if (request_->body.size() < sizeof(T)) return std::nullopt;
  memcpy(&value, request_->body.data(), sizeof(T));
  return value;
}

std::span<const u8> Answerer::attribute_of(size_t body_size, u16 type) const {
  size_t skip = align_up(body_size, kAlign);
  std::span<const u8> rest = request_->body.subspan(std::min(skip, request_->body.size()));
  while (rest.size() >= sizeof(rtattr)) {
    rtattr header;
    memcpy(&header, rest.data(), sizeof(header));
    if (header.rta_len < sizeof(header) || header.rta_len > rest.size()) break;
    if ((header.rta_type & 0x3fff) == type) return rest.subspan(sizeof(header), header.rta_len - sizeof(header));
    rest = rest.subspan(std::min<size_t>(align_up(header.rta_len, kAlign), rest.size()));
  }
  return {};
}

Result<void> Answerer::done() {
  TRY(begin(NLMSG_DONE, int{0}));
  out_.end();
  return {};
}

Result<void> Answerer::error(int code) {
  nlmsgerr body{-code, request_->header};
  TRY(out_.begin(NLMSG_ERROR, 0, request_->header.nlmsg_seq, port_, &body, sizeof(body)));
  out_.end();
  said_error_ = true;
  return {};
}

Result<void> Answerer::link(const net::InterfaceStatus& status) {
  ifinfomsg body{};
  body.ifi_type = linux_interface_type(status);
  body.ifi_index = static_cast<int>(status.index);
  body.ifi_flags = linux_interface_flags(status) | (status.up ? IFF_LOWER_UP : 0);
  TRY(begin(RTM_NEWLINK, body));
  TRY(out_.attribute(IFLA_IFNAME, status.name, strlen(status.name) + 1));
  TRY(out_.attribute(IFLA_TXQLEN, u32{1000}));
  TRY(out_.attribute(IFLA_OPERSTATE, static_cast<u8>(status.loopback ? kOperUnknown : kOperUp)));
  TRY(out_.attribute(IFLA_MTU, status.mtu));
  TRY(out_.attribute(IFLA_ADDRESS, status.mac));
  u8 broadcast[6];
  memset(broadcast, status.loopback ? 0 : 0xff, sizeof(broadcast));
  TRY(out_.attribute(IFLA_BROADCAST, broadcast));
  const auto& from = status.statistics;
  rtnl_link_stats64 counters{};
  counters.rx_packets = from.packets_received;
  counters.tx_packets = from.packets_sent;
  counters.rx_bytes = from.bytes_received;
  counters.tx_bytes = from.bytes_sent;
  counters.rx_errors = from.errors;
  counters.rx_dropped = from.dropped_received;
  counters.tx_dropped = from.dropped_sent;
  TRY(out_.attribute(IFLA_STATS64, counters));
  out_.end();
  return {};
}

Result<void> Answerer::links() {
  InterfaceList list = TRY(InterfaceList::of(stack_));
  auto wanted = body<ifinfomsg>();
  std::span<const u8> name = attribute_of(sizeof(ifinfomsg), IFLA_IFNAME);
  std::string_view name_text(reinterpret_cast<const char*>(name.data()), name.size());
  name_text = name_text.substr(0, name_text.find('\0'));
  bool found = false;
  for (const net::InterfaceStatus& status : list) {
    bool chosen =
        request_->dump || (wanted && wanted->ifi_index > 0 ? static_cast<u32>(wanted->ifi_index) == status.index : name_text == status.name);
    if (!chosen) continue;
    found = true;
    TRY(link(status));
  }
  if (request_->dump) return done();
  return found ? Result<void>() : error(ENODEV);
}

Result<void> Answerer::one_address(const net::InterfaceStatus& status, const net::InterfaceAddress& own) {
  const bool v4 = own.address.is_v4();
  ifaddrmsg body{};
  body.ifa_family = family_of(own.address);
  body.ifa_prefixlen = own.prefix_bits;
  bool for_ever = own.valid_until_ns == ~u64{0};
  body.ifa_flags = static_cast<u8>((for_ever ? IFA_F_PERMANENT : 0) | (own.tentative ? IFA_F_TENTATIVE : 0));
  body.ifa_scope = own.address.is_loopback() ? RT_SCOPE_HOST : own.address.is_link_local() && !v4 ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  body.ifa_index = status.index;
  TRY(begin(RTM_NEWADDR, body));
  TRY(address(IFA_ADDRESS, own.address));
  if (v4) {
    TRY(address(IFA_LOCAL, own.address));
    if (!status.loopback && own.prefix_bits < 31) TRY(address(IFA_BROADCAST, broadcast_of(own)));
    TRY(out_.attribute(IFA_LABEL, status.name, strlen(status.name) + 1));
  }
  TRY(out_.attribute(IFA_FLAGS, u32{body.ifa_flags}));
  ifa_cacheinfo lifetime{~0u, ~0u, 0, 0};
  TRY(out_.attribute(IFA_CACHEINFO, lifetime));
  out_.end();
  return {};
}

Result<void> Answerer::addresses() {
  InterfaceList list = TRY(InterfaceList::of(stack_));
  for (u8 family : {kFamily4, kFamily6}) {  // in this order, as Linux does for AF_UNSPEC
    if (!asked_for(request_->family, family)) continue;
    for (const net::InterfaceStatus& status : list) {
      for (const net::InterfaceAddress& own : AddressList(stack_, status.index)) {
        if (family_of(own.address) == family) TRY(one_address(status, own));
      }
    }
  }
  return done();
}

const net::IpAddress* Answerer::source_on(u32 interface, bool v4) {
  for (const net::InterfaceAddress& own : AddressList(stack_, interface)) {
    if (own.address.is_v4() != v4 || (!v4 && own.address.is_link_local())) continue;
    source_ = own.address;
    return &source_;
  }
  return nullptr;
}

Result<void> Answerer::route(const net::Route& route, u8 type, const net::IpAddress* destination, const net::IpAddress* source) {
  rtmsg body{};
  const net::IpAddress& to = destination != nullptr ? *destination : route.network;
  body.rtm_family = family_of(to);
  body.rtm_dst_len = destination != nullptr ? static_cast<u8>(8 * size_of(to)) : route.prefix_bits;
  body.rtm_table = RT_TABLE_MAIN;
  body.rtm_protocol = route.has_gateway ? RTPROT_BOOT : RTPROT_KERNEL;
  body.rtm_scope = type == RTN_LOCAL ? RT_SCOPE_HOST : route.has_gateway || !to.is_v4() ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
  body.rtm_type = type;
  TRY(begin(RTM_NEWROUTE, body));
  TRY(out_.attribute(RTA_TABLE, u32{body.rtm_table}));
  if (body.rtm_dst_len > 0) TRY(address(RTA_DST, to));
  if (route.has_gateway) TRY(address(RTA_GATEWAY, route.gateway));
  TRY(out_.attribute(RTA_OIF, route.interface));
  if (source != nullptr) TRY(address(RTA_PREFSRC, *source));
  if (route.metric != 0) TRY(out_.attribute(RTA_PRIORITY, route.metric));
  out_.end();
  return {};
}

constexpr size_t kRoutesMax = 32;

Result<void> Answerer::routes() {
  net::Route all[kRoutesMax];
  size_t count = std::min(stack_.routes(all), kRoutesMax);
  for (const net::Route& entry : std::span(all, count)) {
    bool v4 = entry.network.is_v4();
    if (!asked_for(request_->family, v4 ? kFamily4 : kFamily6)) continue;
    TRY(route(entry, RTN_UNICAST, nullptr, v4 && !entry.has_gateway ? source_on(entry.interface, true) : nullptr));
  }
  return done();
}

Result<void> Answerer::route_to(const net::IpAddress& destination) {
  InterfaceList list = TRY(InterfaceList::of(stack_));
  for (const net::InterfaceStatus& status : list) {
    for (const net::InterfaceAddress& own : AddressList(stack_, status.index)) {
      if (own.address != destination && !destination.is_loopback()) continue;
      net::Route local;
      local.interface = 1;
      return route(local, RTN_LOCAL, &destination, &destination);
    }
  }
  net::Route all[kRoutesMax];
  size_t count = std::min(stack_.routes(all), kRoutesMax);
  const net::Route* best = nullptr;
  for (const net::Route& entry : std::span(all, count)) {
    if (entry.network.is_v4() != destination.is_v4() || !destination.in_network(entry.network, entry.prefix_bits)) continue;
    if (best == nullptr || entry.prefix_bits > best->prefix_bits || (entry.prefix_bits == best->prefix_bits && entry.metric < best->metric))
      best = &entry;
  }
  if (best == nullptr) return error(ENETUNREACH);
  return route(*best, RTN_UNICAST, &destination, source_on(best->interface, destination.is_v4()));
}

Result<void> Answerer::dispatch() {
  switch (request_->header.nlmsg_type) {
    case RTM_GETLINK: return links();
    case RTM_GETADDR: return addresses();
    case RTM_GETROUTE: {
      if (request_->dump) return routes();
      std::span<const u8> to = attribute_of(sizeof(rtmsg), RTA_DST);
      if (request_->family == kFamily4 && to.size() == 4) return route_to(net::IpAddress::v4(to.data()));
      if (request_->family == kFamily6 && to.size() == 16) return route_to(net::IpAddress::v6(to.data()));
      return error(EINVAL);
    }
    default:
      // In each group of four: new, delete, get, set.
      bool asks = request_->header.nlmsg_type >= RTM_BASE && (request_->header.nlmsg_type - RTM_BASE) % 4 == 2;
      return error(asks ? EOPNOTSUPP : EPERM);
  }
}

Result<void> Answerer::answer(const Request& request) {
  request_ = &request;
  if (request.header.nlmsg_type < NLMSG_MIN_TYPE) return {};  // control messages: nothing to say
  if (request.body.empty()) return error(EINVAL);
  said_error_ = false;
  TRY(dispatch());
  bool wants_acknowledgement = (request.header.nlmsg_flags & NLM_F_ACK) != 0 && !request.dump;
  return wants_acknowledgement && !said_error_ ? error(0) : Result<void>();
}

}  // namespace

Result<void> answer_netlink(const net::Stack& stack, std::span<const u8> bytes, u32 port, NetlinkAnswer& out) {
  Answerer answerer(stack, port, out);
  while (bytes.size() >= sizeof(nlmsghdr)) {
    Request request;
    memcpy(&request.header, bytes.data(), sizeof(nlmsghdr));
    const u32 length = request.header.nlmsg_len;
    if (length < sizeof(nlmsghdr) || length > bytes.size()) break;
    request.body = bytes.subspan(sizeof(nlmsghdr), length - sizeof(nlmsghdr));
    if (!request.body.empty()) request.family = request.body[0];
    const u16 flags = request.header.nlmsg_flags;
    request.dump = (flags & NLM_F_DUMP) == NLM_F_DUMP || request.header.nlmsg_type == RTM_GETADDR;
    if ((flags & NLM_F_REQUEST) != 0) TRY(answerer.answer(request));
    bytes = bytes.subspan(std::min<size_t>(align_up(length, kAlign), bytes.size()));
  }
  return {};
}

}  // namespace husk::linux
