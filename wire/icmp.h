// ICMP for IPv4 (RFC 792, RFC 1191).
#pragma once

#include <optional>
#include <span>

#include "wire/checksum.h"

namespace husk::wire {

enum IcmpType : u8 {
  kIcmpEchoReply = 0,
  kIcmpUnreachable = 3,
  kIcmpSourceQuench = 4,
  kIcmpRedirect = 5,
  kIcmpEchoRequest = 8,
  kIcmpTimeExceeded = 11,
  kIcmpParameterProblem = 12,
};
enum IcmpUnreachableCode : u8 {
  kIcmpNetUnreachable = 0,
  kIcmpHostUnreachable = 1,
  kIcmpProtocolUnreachable = 2,
  kIcmpPortUnreachable = 3,
  kIcmpFragmentationNeeded = 4,
  kIcmpSourceRouteFailed = 5,
  kIcmpAdministrativelyProhibited = 13,
};
enum IcmpTimeExceededCode : u8 { kIcmpHopLimitExceeded = 0, kIcmpReassemblyTimeExceeded = 1 };

// ICMPv6 has the same first eight bytes (RFC 4443 §2.1, §4.1).
struct IcmpHeader {
  u8 type, code;
  Be16 checksum;
  Be16 first, second;  // echo: identifier, sequence number; fragmentation needed: unused, MTU

  u16 echo_identifier() const { return first; }
  u16 echo_sequence() const { return second; }
};
static_assert(sizeof(IcmpHeader) == 8);

struct Icmp {
  const IcmpHeader* header;
  std::span<const u8> body;  // behind the header: of an error, the packet that it speaks of (RFC 1122 §3.2.2: at least its header and 8 bytes)

  // The checksum is another question: it runs over the whole message.
  static std::optional<Icmp> parse(std::span<const u8> bytes) {
    auto* header = view_at<IcmpHeader>(bytes);
    if (header == nullptr) return std::nullopt;
    return Icmp{header, bytes.subspan(sizeof(IcmpHeader))};
  }
  u8 type() const { return header->type; }
  u8 code() const { return header->code; }
  bool is_error() const {
    u8 type = header->type;
    return type == kIcmpUnreachable || type == kIcmpSourceQuench || type == kIcmpRedirect || type == kIcmpTimeExceeded ||
           type == kIcmpParameterProblem;
  }
  // RFC 1191 §4; 0: the router does not say.
  u16 next_hop_mtu() const { return header->second; }
};

// The header, with the checksum of itself and `body` (which stands or will stand behind it) and of `initial` (ICMPv6: the pseudo header).
inline size_t build_icmp(std::span<u8> out, u8 type, u8 code, u16 first, u16 second, std::span<const u8> body, Checksum initial = {}) {
  auto* header = place_at<IcmpHeader>(out);
  if (header == nullptr) return 0;
  *header = {type, code, 0, first, second};
  initial.add(out.first(sizeof(IcmpHeader)));
  initial.add(body);
  header->checksum = initial.finish();
  return sizeof(IcmpHeader);
}

}  // namespace husk::wire
