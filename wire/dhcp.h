// DHCP messages (RFC 2131, options RFC 2132): a checked view for the client, and a builder.
#pragma once

#include <optional>
#include <span>

#include "wire/endian.h"

namespace husk::wire {

constexpr u16 kDhcpServerPort = 67, kDhcpClientPort = 68;
enum DhcpType : u8 { kDhcpDiscover = 1, kDhcpOffer, kDhcpRequest, kDhcpDecline, kDhcpAck, kDhcpNak, kDhcpRelease, kDhcpInform };
enum DhcpOptionCode : u8 {
  kDhcpPad = 0,
  kDhcpSubnetMask = 1,
  kDhcpRouter = 3,
  kDhcpDnsServer = 6,
  kDhcpHostName = 12,
  kDhcpDomainName = 15,
  kDhcpInterfaceMtu = 26,
  kDhcpBroadcastAddress = 28,
  kDhcpRequestedAddress = 50,
  kDhcpLeaseTime = 51,
  kDhcpOverload = 52,
  kDhcpMessageType = 53,
  kDhcpServerIdentifier = 54,
  kDhcpParameterList = 55,
  kDhcpMessage = 56,
  kDhcpMaximumSize = 57,
  kDhcpRenewalTime = 58,
  kDhcpRebindingTime = 59,
  kDhcpClientIdentifier = 61,
  kDhcpClasslessRoutes = 121,  // RFC 3442
  kDhcpEnd = 255,
};

struct DhcpHeader {
  u8 operation;  // 1 from the client, 2 from the server
  u8 hardware, hardware_size, hops;
  Be32 transaction;
  Be16 seconds, flags;  // flags 0x8000: answer by broadcast
  u8 client_address[4], your_address[4], server_address[4], relay_address[4];
  u8 client_mac[16];
  u8 server_name[64], file[128];
  Be32 magic;
};
static_assert(sizeof(DhcpHeader) == 240);
constexpr u32 kDhcpMagic = 0x63825363;

struct DhcpOption {
  u8 code;
  std::span<const u8> data;
};

// Options of the options field, then of `file` and `server_name` if option 52 says that they hold some (RFC 2131 §4.1).
class DhcpOptionReader {
 public:
  DhcpOptionReader(const DhcpHeader* header, std::span<const u8> options) : rest_(options), header_(header) {}
  std::optional<DhcpOption> next();

 private:
  std::span<const u8> rest_;
  const DhcpHeader* header_;
  u8 overload_ = 0;
};

struct Dhcp {
  const DhcpHeader* header;
  std::span<const u8> options;

  static std::optional<Dhcp> parse(std::span<const u8> bytes) {
    auto* header = view_at<DhcpHeader>(bytes);
    if (header == nullptr || header->magic != kDhcpMagic || header->hardware != 1 || header->hardware_size != 6) return std::nullopt;
    return Dhcp{header, bytes.subspan(sizeof(DhcpHeader))};
  }
  DhcpOptionReader reader() const { return {header, options}; }
  // The first option with this code and at least `size` bytes; empty (and data() null) if there is none.
  std::span<const u8> find(u8 code, size_t size = 1) const;
  // An option that may come in parts (RFC 3396), put together: its size, at most out.size().
  size_t copy(u8 code, std::span<u8> out) const;
  u8 type() const {  // DhcpType; 0: none
    auto data = find(kDhcpMessageType);
    return data.empty() ? u8{0} : data[0];
  }
  std::optional<u32> number(u8 code) const {  // of four bytes: times, addresses as numbers
    auto data = find(code, 4);
    return data.empty() ? std::nullopt : std::optional<u32>(load_be32(data.data()));
  }
  const u8* address(u8 code) const { return find(code, 4).data(); }  // the first; null: none
};

// RFC 3442: one destination with its router, from option 121.
struct DhcpRoute {
  u8 prefix_bits;
  u8 network[4], router[4];
};
class DhcpRouteReader {
 public:
  explicit DhcpRouteReader(std::span<const u8> data) : rest_(data) {}
  std::optional<DhcpRoute> next();

 private:
  std::span<const u8> rest_;
};

// What does not fit is left out and makes finish() give 0.
class DhcpBuilder {
 public:
  static constexpr size_t kSizeMin = 300;  // RFC 1542 §2.1
  DhcpBuilder(std::span<u8> out, DhcpType type, u32 transaction, const u8* mac);
  DhcpHeader* header() { return place_at<DhcpHeader>(out_); }  // to fill in more; null if even this did not fit
  void add(u8 code, std::span<const u8> data);
  void add_u16(u8 code, u16 value);
  void add_u32(u8 code, u32 value);
  // Ends the options and pads to kSizeMin. The message's size, or 0 if there was too little room.
  size_t finish();

 private:
  std::span<u8> out_;
  size_t size_ = sizeof(DhcpHeader);
  bool overflow_ = false;
};

}  // namespace husk::wire
