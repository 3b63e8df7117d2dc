// See network_settings.h.
#undef linux
#include "kernel/linux/network_settings.h"

#include "base/format.h"

namespace husk::linux {
namespace {

struct DecodedAddress {
  bool valid = false;
  net::IpAddress address;
  u8 prefix_bits = 0;
};

DecodedAddress decode_address(std::span<const u8> bytes) {
  abi::NetworkAddress record;
  if (bytes.size() != sizeof(record)) return {};
  memcpy(&record, bytes.data(), sizeof(record));
  bool v4 = record.family == 4;
  if ((!v4 && record.family != 6) || record.prefix_bits > (v4 ? 32 : 128)) return {};
  net::IpAddress address = v4 ? net::IpAddress::v4(record.address) : net::IpAddress::v6(record.address);
  if (address.is_any() || address.is_multicast() || (!v4 && address.is_v4())) return {};
  return {true, address, record.prefix_bits};
}

bool is_plain(std::string_view text) {
  for (char c : text) {
    if (c < ' ' || c == 0x7f) return false;
  }
  return true;
}

}  // namespace

NetworkSettings decode_network(std::span<const u8> configuration) {
  NetworkSettings result;
  result.configuration = configuration;
  abi::ConfigReader reader(configuration);
  while (auto record = reader.next()) {
    DecodedAddress decoded = decode_address(record->bytes);
    switch (record->tag) {
      case abi::ConfigTag::network:
        if (record->bytes.size() == 1 && record->bytes[0] <= 2) result.mode = static_cast<abi::NetworkMode>(record->bytes[0]);
        break;
      case abi::ConfigTag::network_address:
        if (!decoded.valid || result.address_count == NetworkSettings::kAddressesMax) break;
        result.addresses[result.address_count].address = decoded.address;
        result.addresses[result.address_count++].prefix_bits = decoded.prefix_bits;
        break;
      case abi::ConfigTag::network_gateway:
        if (decoded.valid) result.gateways[decoded.address.is_v4() ? 0 : 1] = decoded.address;
        break;
      case abi::ConfigTag::name_server:
        if (decoded.valid && result.name_server_count < NetworkSettings::kNamesMax) {
          result.name_servers[result.name_server_count++] = decoded.address;
        }
        break;
      case abi::ConfigTag::search_domain:
        if (is_plain(record->text())) result.search_domain = record->text();
        break;
      default: break;
    }
  }
  return result;
}

namespace {

std::string_view v4_text(const u8* bytes, char* out) {
  return {out, format_to(out, kAddressText, "%u.%u.%u.%u", bytes[0], bytes[1], bytes[2], bytes[3])};
}

}  // namespace

std::string_view address_text(const net::IpAddress& address, char* out) {
  if (address.is_v4()) return v4_text(address.v4_bytes(), out);
  u16 groups[8];
  for (u32 i = 0; i < 8; ++i) groups[i] = static_cast<u16>(address.bytes[2 * i] << 8 | address.bytes[2 * i + 1]);
  u32 best = 8, best_length = 1;  // the longest run of zeros, if it has more than one
  for (u32 i = 0, run = 0; i < 8; ++i) {
    run = groups[i] == 0 ? run + 1 : 0;
    if (run > best_length) {
      best_length = run;
      best = i + 1 - run;
    }
  }
  size_t at = 0;
  for (u32 i = 0; i < 8; ++i) {
    if (i == best) {
      at += format_to(out + at, kAddressText - at, "::");
      i += best_length - 1;
    } else {
      at += format_to(out + at, kAddressText - at, "%s%x", i == 0 || (best < 8 && i == best + best_length) ? "" : ":", groups[i]);
    }
  }
  return {out, at};
}

Result<void> write_resolv_conf(String& out, std::span<const net::IpAddress> servers, std::string_view search_domain) {
  char text[kAddressText];
  if (!search_domain.empty()) {
    TRY(out.append("search "));
    TRY(out.append(search_domain));
    TRY(out.append("\n"));
  }
  for (const net::IpAddress& server : servers) {
    TRY(out.append("nameserver "));
    TRY(out.append(address_text(server, text)));
    TRY(out.append("\n"));
  }
  return {};
}

Result<void> write_hosts(String& out, const NetworkSettings& settings, std::string_view host_name, const net::IpAddress* own) {
  char text[kAddressText];
  TRY(out.append("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"));
  abi::ConfigReader reader(settings.configuration);
  while (auto record = reader.next()) {
    if (record->tag != abi::ConfigTag::host_entry || !is_plain(record->text())) continue;
    TRY(out.append(record->text()));
    TRY(out.append("\n"));
  }
  TRY(out.append(own != nullptr ? address_text(*own, text) : "127.0.1.1"));
  TRY(out.append("\t"));
  TRY(out.append(host_name));
  return out.append("\n");
}

}  // namespace husk::linux
