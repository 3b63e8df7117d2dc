// See cli/network_options.h. The forms of docker(1) where it has them.
#include "cli/network_options.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>

#include "cli/failure.h"
#include "vmm/net/user_process.h"

namespace husk::cli {
namespace {

using vmm::net::PublishedPort;

struct PortRange {
  u32 first = 0, last = 0;
  u32 count() const { return last - first + 1; }
};

std::optional<u32> parse_number(const std::string& text, u32 max) {
  if (text.empty() || text.size() > 6 || text.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
  u32 value = static_cast<u32>(strtoul(text.c_str(), nullptr, 10));
  return value <= max ? std::optional(value) : std::nullopt;
}

std::optional<PortRange> parse_range(const std::string& text) {
  size_t dash = text.find('-');
  auto first = parse_number(text.substr(0, dash), 65535);
  auto last = dash == std::string::npos ? first : parse_number(text.substr(dash + 1), 65535);
  if (!first || !last || *first > *last) return std::nullopt;
  return PortRange{*first, *last};
}

// Cuts what stands before the last colon; "" and false if there is none.
bool cut_before_last_colon(std::string& text, std::string& before) {
  size_t colon = text.rfind(':');
  if (colon == std::string::npos) return false;
  before = text.substr(0, colon);
  text.erase(0, colon + 1);
  return true;
}

[[noreturn]] void bad_publish(const std::string& text, const std::string& why) {
  throw Failure("-p " + text + ": " + why + "; write [HOSTIP:][HOSTPORT:]GUESTPORT[/udp], such as 8080:80 or 127.0.0.1:6379:6379");
}

void parse_kind(const std::string& text, NetworkOptions& out) {
  if (text.empty() || text == "user" || text == "user,host-loopback=off") return;
  if (text == "user,host-loopback=on") {
    out.host_loopback = true;
  } else if (text == "none") {
    out.kind = NetworkOptions::Kind::none;
  } else if (text == "tap" || (text.starts_with("tap=") && text.size() > 4)) {
    out.kind = NetworkOptions::Kind::tap;
    if (text != "tap") out.interface = text.substr(4);
  } else if (text == "host") {
    throw Failure("--net host: a machine has a network of its own; publish its ports with -p HOSTPORT:PORT, or give it an interface with --net tap");
  } else if (text == "bridge") {
    throw Failure(
        "--net bridge: the default, --net user, does what docker's bridge does; to join a bridge of this host put a TAP interface into it: --net "
        "tap=IF");
  } else {
    throw Failure("--net " + text + ": no such network; choose none, user, user,host-loopback=on, tap or tap=INTERFACE");
  }
}

void parse_ip(const std::string& text, NetworkOptions& out) {
  auto bad = [&](const std::string& why) { throw Failure("--ip " + text + ": " + why + "; write ADDRESS[/PREFIX][,gateway=ADDRESS], or dhcp"); };
  if (text == "dhcp") {
    out.dhcp = true;
    return;
  }
  std::string address = text.substr(0, text.find(','));
  std::string rest = text.substr(std::min(address.size() + 1, text.size()));
  size_t slash = address.find('/');
  auto parsed = parse_address(address.substr(0, slash));
  if (!parsed) bad(address.substr(0, slash) + " is not an address");
  u8 bits_max = parsed->family == 4 ? 32 : 128;
  parsed->prefix_bits = parsed->family == 4 ? 24 : 64;
  if (slash != std::string::npos) {
    auto bits = parse_number(address.substr(slash + 1), bits_max);
    if (!bits || *bits == 0) bad("the prefix is a number from 1 to " + std::to_string(bits_max));
    parsed->prefix_bits = static_cast<u8>(*bits);
  }
  out.addresses.push_back(*parsed);
  if (address.size() == text.size()) return;
  if (!rest.starts_with("gateway=")) bad("only gateway= may follow the address");
  auto gateway = parse_address(rest.substr(8));
  if (!gateway || gateway->family != parsed->family) bad(rest.substr(8) + " is not an address of the same kind");
  out.gateways.push_back(*gateway);
}

std::string parse_host_entry(const std::string& text) {
  size_t colon = text.find_first_of(":=");
  std::string name = text.substr(0, colon), address = colon == std::string::npos ? "" : text.substr(colon + 1);
  if (address.size() > 2 && address.front() == '[' && address.back() == ']') address = address.substr(1, address.size() - 2);
  if (!is_host_name(name)) throw Failure("--add-host " + text + ": has no name; write NAME:ADDRESS");
  if (address != "host-gateway" && !parse_address(address)) {
    throw Failure("--add-host " + text + ": '" + address + "' is not an address; write NAME:ADDRESS, or NAME:host-gateway for this host");
  }
  return address + " " + name;
}

void check_kind(const NetworkOptions& options, const NetworkWords& words) {
  using enum NetworkOptions::Kind;
  if (options.kind == none) {
    if (!words.publish.empty()) throw Failure("-p " + words.publish[0] + ": the machine has no network; leave --net none out");
    if (!words.pcap.empty()) throw Failure("--pcap " + words.pcap + ": the machine has no network; leave --net none out");
  }
  if (options.kind == tap && !words.publish.empty()) {
    throw Failure("-p " + words.publish[0] + ": with --net tap the machine has an address of its own, and all its ports; leave -p out");
  }
  if (options.kind != tap && !words.ip.empty()) {
    throw Failure("--ip " + words.ip[0] + ": only with --net tap; behind --net user the machine is always " + vmm::net::kUserGuest4);
  }
  for (u8 family : {u8{4}, u8{6}}) {
    auto same = [family](const abi::NetworkAddress& gateway) { return gateway.family == family; };
    if (std::count_if(options.gateways.begin(), options.gateways.end(), same) > 1) throw Failure("--ip: more than one gateway; keep one");
  }
}

}  // namespace

std::optional<abi::NetworkAddress> parse_address(const std::string& text) {
  abi::NetworkAddress out{};
  out.family = text.find(':') == std::string::npos ? 4 : 6;
  if (inet_pton(out.family == 4 ? AF_INET : AF_INET6, text.c_str(), out.address) != 1) return std::nullopt;
  return out;
}

std::string address_text(const abi::NetworkAddress& address) {
  char text[INET6_ADDRSTRLEN] = {};
  inet_ntop(address.family == 4 ? AF_INET : AF_INET6, address.address, text, sizeof(text));
  return text;
}

std::vector<PublishedPort> parse_publish(const std::string& text) {
  std::string guest = text, host, address;
  PublishedPort port;
  size_t slash = text.rfind('/');
  if (slash != std::string::npos) {
    std::string protocol = text.substr(slash + 1);
    if (protocol != "tcp" && protocol != "udp") bad_publish(text, "the protocol is tcp or udp, not '" + protocol + "'");
    port.udp = protocol == "udp";
    guest.erase(slash);
  }
  std::string before;
  if (cut_before_last_colon(guest, before)) {
    host = before;
    if (cut_before_last_colon(host, address)) {
      bool brackets = address.size() > 2 && address.front() == '[' && address.back() == ']';
      port.host_address = brackets ? address.substr(1, address.size() - 2) : address;
      auto parsed = parse_address(port.host_address);
      if (!parsed) bad_publish(text, "'" + address + "' is not an address of this host");
      if (brackets != (parsed->family == 6)) bad_publish(text, "brackets are for IPv6 addresses, [::1]:8080:80");
    }
  }
  auto guest_ports = parse_range(guest);
  auto host_ports = host.empty() ? std::optional(PortRange{}) : parse_range(host);
  if (!guest_ports || guest_ports->first == 0) bad_publish(text, "'" + guest + "' is not a port, 1 to 65535, or a range of ports");
  if (!host_ports) bad_publish(text, "'" + host + "' is not a port, 1 to 65535, or a range of ports");
  bool chosen = host_ports->last == 0;
  if (!chosen && (host_ports->first == 0 || host_ports->count() != guest_ports->count())) bad_publish(text, "the two ranges have different lengths");
  std::vector<PublishedPort> out;
  for (u32 i = 0; i < guest_ports->count(); ++i) {
    port.guest_port = static_cast<u16>(guest_ports->first + i);
    port.host_port = chosen ? u16{0} : static_cast<u16>(host_ports->first + i);
    out.push_back(port);
  }
  return out;
}

MacAddress parse_mac(const std::string& text) {
  MacAddress out{};
  char end = 0;
  bool good =
      text.size() == 17 && sscanf(text.c_str(), "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx%c", &out[0], &out[1], &out[2], &out[3], &out[4], &out[5], &end) == 6;
  if (!good) throw Failure("--mac-address " + text + ": not a MAC address; write six bytes, such as 02:00:00:00:00:01");
  if ((out[0] & 1) != 0 || out == MacAddress{}) {
    throw Failure("--mac-address " + text + ": is a group address or zero; begin with 02, which is free for everybody's use");
  }
  return out;
}

bool is_host_name(const std::string& name) {
  return !name.empty() && name.size() <= 253 && std::all_of(name.begin(), name.end(), [](char c) {
    return isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '.' || c == '_';
  });
}

NetworkOptions parse_network(const NetworkWords& words) {
  NetworkOptions out;
  parse_kind(words.net, out);
  for (const std::string& text : words.publish) {
    for (PublishedPort& port : parse_publish(text)) out.ports.push_back(std::move(port));
  }
  if (out.ports.size() > vmm::net::kPublishedPortsMax)
    throw Failure("-p: more than " + std::to_string(vmm::net::kPublishedPortsMax) + " ports; use --net tap");
  for (const std::string& text : words.ip) parse_ip(text, out);
  for (const std::string& text : words.dns) {
    auto address = parse_address(text);
    if (!address) throw Failure("--dns " + text + ": not an address; give the address of a name server");
    out.name_servers.push_back(*address);
  }
  for (const std::string& text : words.dns_search) {
    if (!is_host_name(text)) throw Failure("--dns-search " + text + ": not a domain");
    out.search_domains += (out.search_domains.empty() ? "" : " ") + text;
  }
  for (const std::string& text : words.add_host) out.host_entries.push_back(parse_host_entry(text));
  if (!words.mac.empty()) out.mac = parse_mac(words.mac);
  if (!words.mtu.empty()) {
    auto mtu = parse_number(words.mtu, vmm::net::kUserMtu);
    if (!mtu || *mtu < 1280) throw Failure("--mtu " + words.mtu + ": not a number from 1280 to " + std::to_string(vmm::net::kUserMtu));
    out.mtu = static_cast<u16>(*mtu);
  }
  if (words.pcap == "-") throw Failure("--pcap -: stdout is the program's; name a file, or a FIFO (mkfifo) that tcpdump -r reads");
  out.pcap = words.pcap;
  check_kind(out, words);
  return out;
}

}  // namespace husk::cli
