// Ends for libslirp what it would keep: a connection whose side of the host closed first stays with it for ten seconds after its end (TIME_WAIT, RFC 9293
// §3.3.2), with its socket and a third of a megabyte of address space. Some hundred short connections a second would exhaust both.
//
// TIME_WAIT waits for late segments. Between libslirp and its guest none is late or lost, so a reset in the guest's name may end it at once (RFC 9293
// §3.10.7.4, second step). This watches the frames of both directions for that moment. Pure; no frame is trusted.
#pragma once

#include <string.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "base/types.h"

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
  static constexpr size_t kEthernet = 14, kTcpHeader = 20, kFlowsMax = 16384;
  static constexpr u8 kTcp = 6, kFin = 1, kSyn = 2, kRst = 4, kAck = 16;
  enum class Direction { to_guest, from_guest };
  using Key = std::array<u8, 21>;  // version, the address that is not the guest's, its port, the guest's port
  struct Segment {
    Key key{};
    u32 sequence = 0, acknowledged = 0, size = 0;
    size_t transport = 0;  // where TCP's header is in the frame
    u8 flags = 0;
    u32 end() const { return sequence + size + 1; }  // after its FIN
  };
  struct Flow {
    bool guest_first = false, guest_end_is_acknowledged = false, host_end_is_acknowledged = false;
    std::optional<u32> guest_end, host_end;  // sequence numbers after the FINs
    std::vector<u8> reset;
  };
  using Flows = std::map<Key, Flow>;

  static u32 get16(const u8* at) { return at[0] << 8 | at[1]; }
  static u32 get32(const u8* at) { return get16(at) << 16 | get16(at + 2); }
  static void put16(u8* at, u32 value) { at[0] = static_cast<u8>(value >> 8), at[1] = static_cast<u8>(value); }

  static std::optional<Segment> parse(std::span<const u8> frame, Direction direction) {
    if (frame.size() < kEthernet + 20) return std::nullopt;
    const u32 type = get16(&frame[12]);
    const u8* ip = &frame[kEthernet];
    const bool v6 = type == 0x86dd;
    if ((!v6 && type != 0x0800) || frame.size() < kEthernet + (v6 ? 40 : 20)) return std::nullopt;
    const size_t header = v6 ? 40 : (ip[0] & 15) * size_t{4};
    const size_t size = v6 ? 40 + get16(ip + 4) : get16(ip + 2);  // of the packet
    const bool fragment = !v6 && (get16(ip + 6) & 0x3fff) != 0;
    if (ip[v6 ? 6 : 9] != kTcp || fragment || header < 20 || size < header + kTcpHeader || frame.size() < kEthernet + size) return std::nullopt;
    Segment segment;
    segment.transport = kEthernet + header;
    const u8* tcp = &frame[segment.transport];
    const size_t tcp_header = (tcp[12] >> 4) * size_t{4};
    if (tcp_header < kTcpHeader || size < header + tcp_header) return std::nullopt;
    segment.size = static_cast<u32>(size - header - tcp_header);
    segment.sequence = get32(tcp + 4);
    segment.acknowledged = get32(tcp + 8);
    segment.flags = tcp[13];
    const bool to_guest = direction == Direction::to_guest;
    segment.key[0] = v6 ? 6 : 4;
    if (v6) memcpy(&segment.key[1], ip + (to_guest ? 8 : 24), 16);
    else memcpy(&segment.key[1], ip + (to_guest ? 12 : 16), 4);
    memcpy(&segment.key[17], tcp + (to_guest ? 0 : 2), 2);
    memcpy(&segment.key[19], tcp + (to_guest ? 2 : 0), 2);
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
    std::vector<u8> out(frame.begin(), frame.begin() + static_cast<ptrdiff_t>(segment.transport + kTcpHeader));
    u8* ip = &out[kEthernet];
    u8* tcp = &out[segment.transport];
    const bool v6 = segment.key[0] == 6;
    const u32 sequence = segment.end();
    put16(tcp + 4, sequence >> 16);
    put16(tcp + 6, sequence & 0xffff);
    memset(tcp + 8, 0, kTcpHeader - 8);  // nothing acknowledged, no window
    tcp[12] = kTcpHeader / 4 << 4;
    tcp[13] = kRst;
    if (v6) {
      put16(ip + 4, kTcpHeader);
    } else {
      put16(ip + 2, static_cast<u32>(out.size() - kEthernet));
      put16(ip + 10, 0);
      put16(ip + 10, checksum(ip, segment.transport - kEthernet, 0));
    }
    // The addresses are the end of an IPv6 header and of an IPv4 one without options.
    const u8* addresses = ip + (v6 ? 8 : 12);
    const size_t addresses_size = v6 ? 32 : 8;
    u32 pseudo = kTcp + kTcpHeader;
    for (size_t i = 0; i < addresses_size; i += 2) pseudo += get16(addresses + i);
    put16(tcp + 16, checksum(tcp, kTcpHeader, pseudo));
    return out;
  }
  static u32 checksum(const u8* bytes, size_t size, u32 sum) {
    for (size_t i = 0; i < size; i += 2) sum += get16(bytes + i);
    while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
    return ~sum & 0xffff;
  }

  Flows flows_;  // of which one side has said that it ends
  std::vector<std::vector<u8>> due_;
};

}  // namespace husk::vmm::net
