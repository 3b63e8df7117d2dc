// Ends for libslirp what it would keep: a connection whose side of the host closed first stays with it for ten seconds after its end (TIME_WAIT, RFC 9293
// §3.3.2), with its socket and a third of a megabyte of address space. Some hundred short connections a second would exhaust both.
//
// TIME_WAIT waits for late segments. Between libslirp and its guest none is late or lost, so a reset in the guest's name may end it at once (RFC 9293
// §3.10.7.4, second step). This watches the frames of both directions for that moment. Pure; no frame is trusted.
#pragma once

#include <string.h>

#include <array>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "wire/ethernet.h"
#include "wire/ipv6.h"
#include "wire/tcp.h"

namespace husk::vmm::net {

class Endings {
 public:
  // Each frame, before the other side works with it.
  void note_to_guest(std::span<const u8> frame) {
    auto segment = parse(frame, Direction::to_guest);
    if (!segment || !is_of_interest(*segment)) return;
    if (forget_if_over(*segment)) return;
    auto found = flows_.find(segment->key);
    if ((segment->flags & kFin) != 0) {
      if (found != flows_.end() && found->second.guest_first) return (void)flows_.erase(found);  // it keeps nothing of that one
      found = add(segment->key);
      found->second.host_end = segment->end();
    }
    if (found == flows_.end() || !found->second.host_end) return;
    Flow& flow = found->second;
    if (flow.guest_end && segment->acknowledged == *flow.guest_end) flow.guest_end_is_acknowledged = true;
    settle(found);
  }
  void note_from_guest(std::span<const u8> frame) {
    auto segment = parse(frame, Direction::from_guest);
    if (!segment || !is_of_interest(*segment)) return;
    if (forget_if_over(*segment)) return;
    auto found = flows_.find(segment->key);
    if ((segment->flags & kFin) != 0) {
      if (found == flows_.end()) (found = add(segment->key))->second.guest_first = true;
      found->second.guest_end = segment->end();
      found->second.reset = make_reset(frame, *segment);
    }
    if (found == flows_.end() || !found->second.host_end) return;
    if (segment->acknowledged == *found->second.host_end) found->second.host_end_is_acknowledged = true;
    settle(found);
  }
  // When the other side has worked with what was noted: the next frame that is to be given to libslirp.
  std::optional<std::vector<u8>> take() {
    if (due_.empty()) return std::nullopt;
    std::vector<u8> frame = std::move(due_.back());
    due_.pop_back();
    return frame;
  }

 private:
  static constexpr size_t kFlowsMax = 16384;
  static constexpr u8 kFin = 1, kSyn = 2, kRst = 4;
  enum class Direction { to_guest, from_guest };
  using Key = std::array<u8, 21>;  // version, the address that is not the guest's, its port, the guest's port
  struct Segment {
    Key key{};
    u32 sequence = 0, acknowledged = 0, size = 0;
    u8 flags = 0;
    u32 end() const { return sequence + size + 1; }  // after its FIN
  };
  struct Flow {
    bool guest_first = false, guest_end_is_acknowledged = false, host_end_is_acknowledged = false;
    std::optional<u32> guest_end, host_end;  // sequence numbers after the FINs
    std::vector<u8> reset;
  };
  using Flows = std::map<Key, Flow>;

  // Of IPv4 or IPv6, `protocol` is TCP and the segment lies in the frame as a whole.
  struct Views {
    const wire::EthernetHeader* ethernet = nullptr;
    std::optional<wire::Ipv4> v4;
    std::optional<wire::Ipv6> v6;
    std::optional<wire::Tcp> tcp;
  };
  static Views views_of(std::span<const u8> frame) {
    Views views;
    auto ethernet = wire::Ethernet::parse(frame);
    if (!ethernet) return views;
    views.ethernet = ethernet->header;
    if (ethernet->type() == wire::kEtherTypeIpv4) views.v4 = wire::Ipv4::parse(ethernet->payload);
    if (ethernet->type() == wire::kEtherTypeIpv6) views.v6 = wire::Ipv6::parse(ethernet->payload);
    if (views.v4 && views.v4->header->protocol == wire::kProtocolTcp && !views.v4->is_fragment()) views.tcp = wire::Tcp::parse(views.v4->payload);
    if (views.v6 && views.v6->header->next_header == wire::kProtocolTcp) views.tcp = wire::Tcp::parse(views.v6->payload);
    return views;
  }
  static std::optional<Segment> parse(std::span<const u8> frame, Direction direction) {
    const Views views = views_of(frame);
    if (!views.tcp) return std::nullopt;
    const wire::TcpHeader& header = *views.tcp->header;
    Segment segment{.sequence = header.sequence,
                    .acknowledged = header.acknowledgement,
                    .size = static_cast<u32>(views.tcp->payload.size()),
                    .flags = header.flags};
    const bool to_guest = direction == Direction::to_guest;
    segment.key[0] = views.v6 ? 6 : 4;
    if (views.v6) memcpy(&segment.key[1], to_guest ? views.v6->header->source : views.v6->header->destination, 16);
    else memcpy(&segment.key[1], to_guest ? views.v4->header->source : views.v4->header->destination, 4);
    wire::store_be16(&segment.key[17], to_guest ? header.source_port : header.destination_port);
    wire::store_be16(&segment.key[19], to_guest ? header.destination_port : header.source_port);
    return segment;
  }

  bool is_of_interest(const Segment& segment) const { return (segment.flags & kFin) != 0 || !flows_.empty(); }
  bool forget_if_over(const Segment& segment) {
    if ((segment.flags & (kSyn | kRst)) == 0) return false;
    flows_.erase(segment.key);
    return true;
  }
  Flows::iterator add(const Key& key) {
    if (flows_.size() >= kFlowsMax) flows_.clear();  // those end as libslirp ends them
    return flows_.try_emplace(key).first;
  }
  void settle(Flows::iterator at) {
    Flow& flow = at->second;
    if (!flow.guest_end_is_acknowledged || !flow.host_end_is_acknowledged) return;
    due_.push_back(std::move(flow.reset));
    flows_.erase(at);
  }

  // From the guest's frame with its FIN: the same ends, nothing but a reset behind that FIN.
  static std::vector<u8> make_reset(std::span<const u8> frame, const Segment& segment) {
    const Views views = views_of(frame);
    constexpr size_t kTcp = sizeof(wire::TcpHeader), kEthernet = sizeof(wire::EthernetHeader);
    const size_t ip = views.v6 ? sizeof(wire::Ipv6Header) : sizeof(wire::Ipv4Header);
    std::vector<u8> out(kEthernet + ip + kTcp);
    const std::span<u8> bytes(out);
    wire::build_ethernet(bytes, views.ethernet->destination, views.ethernet->source, views.ethernet->type);
    wire::Checksum sum;
    if (views.v6) {
      const wire::Ipv6Header& from = *views.v6->header;
      wire::build_ipv6(bytes.subspan(kEthernet), {.next_header = wire::kProtocolTcp, .source = from.source, .destination = from.destination}, kTcp);
      sum.add_pseudo_v6(from.source, from.destination, wire::kProtocolTcp, kTcp);
    } else {
      const wire::Ipv4Header& from = *views.v4->header;
      wire::build_ipv4(bytes.subspan(kEthernet), {.protocol = wire::kProtocolTcp, .source = from.source, .destination = from.destination}, kTcp);
      sum.add_pseudo_v4(from.source, from.destination, wire::kProtocolTcp, kTcp);
    }
    auto& tcp = *wire::place_at<wire::TcpHeader>(bytes, kEthernet + ip);  // nothing acknowledged, no window
    tcp.source_port = views.tcp->header->source_port;
    tcp.destination_port = views.tcp->header->destination_port;
    tcp.sequence = segment.end();
    tcp.size_and_reserved = kTcp / 4 << 4;
    tcp.flags = kRst;
    sum.add(bytes.last(kTcp));
    tcp.checksum = sum.finish();
    return out;
  }

  Flows flows_;  // of which one side has said that it ends
  std::vector<std::vector<u8>> due_;
};

}  // namespace husk::vmm::net
