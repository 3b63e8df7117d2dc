// See cli/network.h.
#include "cli/network.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <fstream>
#include <sstream>

#include "cli/failure.h"

namespace husk::cli {
namespace {

using abi::ConfigTag;
using abi::NetworkAddress;
namespace net = vmm::net;
using enum NetworkOptions::Kind;

// What the host's programs use: resolv.conf(5).
struct HostResolver {
  std::vector<NetworkAddress> servers;
  std::string search;
};

HostResolver read_host_resolver() {
  HostResolver out;
  std::ifstream file("/etc/resolv.conf");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string keyword, word;
    words >> keyword;
    if (keyword == "nameserver" && words >> word) {
      if (auto address = parse_address(word)) out.servers.push_back(*address);
    } else if (keyword == "search" || keyword == "domain") {
      out.search.clear();
      while (words >> word) out.search += (out.search.empty() ? "" : " ") + word;
    }
  }
  return out;
}

bool is_loopback(const NetworkAddress& address) { return address.family == 4 ? address.address[0] == 127 : address_text(address) == "::1"; }

// The address by which this host is known to others; nothing is sent. "": it has none.
std::string own_address() {
  host::FileDescriptor probe(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = htons(9);
  name.sin_addr.s_addr = htonl(0xc0000201);  // 192.0.2.1, for documentation (RFC 5737)
  socklen_t size = sizeof(name);
  if (!probe || connect(probe.get(), reinterpret_cast<sockaddr*>(&name), size) != 0) return "";
  if (getsockname(probe.get(), reinterpret_cast<sockaddr*>(&name), &size) != 0) return "";
  NetworkAddress address{};
  address.family = 4;
  memcpy(address.address, &name.sin_addr, sizeof(name.sin_addr));
  return is_loopback(address) ? "" : address_text(address);
}

NetworkAddress address_of(const std::string& text, u8 prefix_bits = 0) {
  NetworkAddress out = parse_address(text).value();
  out.prefix_bits = prefix_bits;
  return out;
}

host::FileDescriptor open_pcap(const std::string& path) {
  host::FileDescriptor file(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!file) throw Failure("--pcap " + path + ": " + strerror(errno) + "; check the path and its permissions");
  fcntl(file.get(), F_SETFL, O_NONBLOCK);  // a pipe whose reader is slow costs frames of the capture, not of the guest
  return file;
}

}  // namespace

MachineNetwork::MachineNetwork(const NetworkOptions& options) : options_(options) {
  if (options.kind == none) return;
  if (options.mac) {
    mac_ = *options.mac;
  } else {
    (void)!getrandom(mac_.data(), mac_.size(), 0);
    mac_[0] = 2;  // locally administered, of one station
  }
  if (!options.pcap.empty()) pcap_ = open_pcap(options.pcap);
  if (options.kind == tap) {
    tap_ = net::open_tap(options.interface);
    if (options.mtu && *options.mtu > tap_.mtu) {
      throw Failure("--mtu " + std::to_string(*options.mtu) + ": " + tap_.name + " takes " + std::to_string(tap_.mtu) +
                    "; raise it with: ip link set " + tap_.name + " mtu " + std::to_string(*options.mtu));
    }
    return;
  }
  net::UserNetworkOptions user;
  memcpy(user.mac, mac_.data(), mac_.size());
  user.ports = options.ports;
  user.host_loopback = options.host_loopback;
  user.mtu = options.mtu.value_or(net::kUserMtu);
  user_ = std::make_unique<net::UserNetwork>(user);
}

void MachineNetwork::append_configuration(std::vector<u8>& out) const {
  auto append = [&](ConfigTag tag, const auto& value) { abi::append_config(out, tag, {reinterpret_cast<const char*>(&value), sizeof(value)}); };
  HostResolver resolver = options_.kind == none ? HostResolver{} : read_host_resolver();
  std::vector<NetworkAddress> servers;
  std::string host = "127.0.0.1";
  bool automatic = false;
  if (options_.kind == user) {
    append(ConfigTag::network_address, address_of(net::kUserGuest4, net::kUserPrefixBits4));
    append(ConfigTag::network_address, address_of(net::kUserGuest6, net::kUserPrefixBits6));
    append(ConfigTag::network_gateway, address_of(net::kUserGateway4));
    append(ConfigTag::network_gateway, address_of(net::kUserGateway6));
    // libslirp asks the host's first server of the same family.
    auto has = [&](u8 family) {
      return std::any_of(resolver.servers.begin(), resolver.servers.end(), [&](auto& each) { return each.family == family; });
    };
    if (has(4) || !has(6)) servers.push_back(address_of(net::kUserNameServer4));
    if (has(6)) servers.push_back(address_of(net::kUserNameServer6));
    std::string own = options_.host_loopback ? "" : own_address();
    host = own.empty() ? net::kUserGateway4 : own;
  } else if (options_.kind == tap) {
    automatic = options_.dhcp || (options_.addresses.empty() && !made_tap());
    if (made_tap()) {
      append(ConfigTag::network_address, address_of(tap_.guest_address, tap_.prefix_bits));
      append(ConfigTag::network_gateway, address_of(tap_.host_address));
    }
    for (const NetworkAddress& address : options_.addresses) append(ConfigTag::network_address, address);
    for (const NetworkAddress& gateway : options_.gateways) append(ConfigTag::network_gateway, gateway);
    if (!automatic)
      std::copy_if(resolver.servers.begin(), resolver.servers.end(), std::back_inserter(servers), [](auto& each) { return !is_loopback(each); });
    host = !tap_.host_address.empty() ? tap_.host_address : own_address();
  }
  u8 mode = static_cast<u8>(options_.kind == none ? abi::NetworkMode::none : automatic ? abi::NetworkMode::automatic : abi::NetworkMode::manual);
  append(ConfigTag::network, mode);
  for (const NetworkAddress& server : options_.name_servers.empty() ? servers : options_.name_servers) append(ConfigTag::name_server, server);
  const std::string& search = options_.search_domains.empty() && !automatic ? resolver.search : options_.search_domains;
  if (!search.empty()) abi::append_config(out, ConfigTag::search_domain, search);
  for (const std::string& entry : options_.host_entries) {
    bool gateway = entry.starts_with("host-gateway ");
    if (gateway && host.empty()) throw Failure("--add-host: this host has no address that a machine could reach; give one instead of host-gateway");
    abi::append_config(out, ConfigTag::host_entry, gateway ? host + entry.substr(entry.find(' ')) : entry);
  }
  if (options_.kind != none && !host.empty()) abi::append_config(out, ConfigTag::host_entry, host + " host.husk.internal");
}

std::optional<vmm::NetworkDevice> MachineNetwork::open(const std::string& name) {
  if (options_.kind == none) return std::nullopt;
  vmm::NetworkDevice device;
  if (user_) {
    const auto& ports = user_->wait_until_open();
    for (size_t i = 0; i < ports.size(); ++i) {
      if (options_.ports[i].host_port != 0) continue;
      fprintf(stderr, "husk: network: port %u%s of %s is port %u of %s\n", ports[i].host_port, ports[i].udp ? "/udp" : "",
              ports[i].host_address.c_str(), ports[i].guest_port, name.c_str());
    }
    device = user_->device();
  } else {
    device.fd = tap_.fd.get();
    device.vnet_header = true;
    memcpy(device.mac, mac_.data(), mac_.size());
    device.mtu = options_.mtu.value_or(tap_.mtu);
    if (made_tap()) {
      fprintf(stderr, "husk: network: %s is at %s (host %s on %s)\n", name.c_str(), tap_.guest_address.c_str(), tap_.host_address.c_str(),
              tap_.name.c_str());
    }
  }
  device.pcap_fd = pcap_.get();
  return device;
}

void MachineNetwork::close() {
  if (user_) user_->stop();
}

}  // namespace husk::cli
