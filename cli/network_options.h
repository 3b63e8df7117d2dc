// The words of -p, --net, --ip and their like, checked: what kind of network a machine gets. Nothing is opened here.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "abi/boot_config.h"
#include "vmm/net/user_network.h"

namespace husk::cli {

using MacAddress = std::array<u8, 6>;

struct NetworkOptions {
  enum class Kind { none, user, tap } kind = Kind::user;
  std::string interface;       // of tap; "": husk makes one
  bool host_loopback = false;  // of user
  bool dhcp = false;           // of tap
  std::vector<vmm::net::PublishedPort> ports;
  std::vector<abi::NetworkAddress> addresses, gateways, name_servers;
  std::string search_domains;
  std::vector<std::string> host_entries;  // "ADDRESS NAME"; ADDRESS may be the word host-gateway
  std::optional<MacAddress> mac;
  std::optional<u16> mtu;
  std::string pcap;
};

// As typed.
struct NetworkWords {
  std::string net = "", mac = "", mtu = "", pcap = "";
  std::vector<std::string> publish = {}, ip = {}, dns = {}, dns_search = {}, add_host = {};
};

// All of these throw Failure.
NetworkOptions parse_network(const NetworkWords& words);
// [HOSTIP:][HOSTPORT:]GUESTPORT[/tcp|/udp], each port also a range FIRST-LAST.
std::vector<vmm::net::PublishedPort> parse_publish(const std::string& text);
MacAddress parse_mac(const std::string& text);

// Of either family, without prefix; nothing if it is not an address.
std::optional<abi::NetworkAddress> parse_address(const std::string& text);
// RFC 1123 section 2.1, and docker's underscore.
bool is_host_name(const std::string& name);
std::string address_text(const abi::NetworkAddress& address);

}  // namespace husk::cli
