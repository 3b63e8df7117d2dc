// The network as the boot configuration describes it, and the files of /etc that follow from it: pure functions, tested hosted.
//
// The configuration is untrusted: an address that makes no sense is left out, a text with control characters too.
#pragma once
#undef linux

#include "abi/boot_config.h"
#include "base/vec.h"
#include "kernel/net/stack.h"

namespace husk::linux {

struct NetworkSettings {
  static constexpr u32 kAddressesMax = 16, kNamesMax = 4;
  std::span<const u8> configuration;  // host entries are read from here again
  abi::NetworkMode mode = abi::NetworkMode::none;
  net::InterfaceAddress addresses[kAddressesMax];
  net::IpAddress gateways[2];  // IPv4, IPv6; any-address: none
  net::IpAddress name_servers[kNamesMax];
  u32 address_count = 0, name_server_count = 0;
  std::string_view search_domain;
};
NetworkSettings decode_network(std::span<const u8> configuration);

// inet_ntop(3), RFC 5952; `out` has room for kAddressText bytes.
constexpr size_t kAddressText = 46;
std::string_view address_text(const net::IpAddress& address, char* out);

// resolv.conf(5), hosts(5). `own`: the machine's first address, null if there is none yet.
Result<void> write_resolv_conf(String& out, std::span<const net::IpAddress> servers, std::string_view search_domain);
Result<void> write_hosts(String& out, const NetworkSettings& settings, std::string_view host_name, const net::IpAddress* own);

}  // namespace husk::linux
