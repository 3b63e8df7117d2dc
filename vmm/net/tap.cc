// See vmm/net/tap.h. Linux Documentation/networking/tuntap.rst, netdevice(7).
#include "vmm/net/tap.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <utility>

#include "abi/virtio/mmio.h"
#include "abi/virtio/net.h"
#include "vmm/monitor_error.h"

namespace husk::vmm::net {
namespace {

constexpr u32 kSubnets = 10u << 24 | 83u << 16;  // 10.83.0.0/16, cut into subnets of two addresses
constexpr u8 kPrefixBits = 30;
constexpr u32 kSubnetMask = ~u32{3}, kSubnetCount = 1 << 14;
constexpr u32 kAllOffloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;

std::string text_of(u32 address) {
  in_addr value{htonl(address)};
  char text[INET_ADDRSTRLEN];
  return inet_ntop(AF_INET, &value, text, sizeof(text));
}

std::string how_to_make(const std::string& name) {
  std::string tap = name.empty() ? "husk0" : name;
  return "the administrator can make one for you: sudo ip tuntap add " + tap + " mode tap user $USER && sudo ip link set " + tap + " up";
}

// Requests about one interface, by name.
class Interface {
 public:
  explicit Interface(const std::string& name) : name_(name), socket_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    if (!socket_) throw_errno("opening a socket to ask for interfaces");
  }
  bool request(unsigned long number, ifreq& value) const {
    size_t count = std::min(name_.size(), sizeof(value.ifr_name) - 1);
    memcpy(value.ifr_name, name_.data(), count);
    value.ifr_name[count] = '\0';
    return ioctl(socket_.get(), number, &value) == 0;
  }
  bool exists() const {
    ifreq value{};
    return request(SIOCGIFINDEX, value);
  }
  bool is_up() const {
    ifreq value{};
    return request(SIOCGIFFLAGS, value) && (value.ifr_flags & IFF_UP) != 0;
  }
  bool bring_up() const {
    ifreq value{};
    if (!request(SIOCGIFFLAGS, value)) return false;
    value.ifr_flags |= IFF_UP;
    return request(SIOCSIFFLAGS, value);
  }
  u16 mtu() const {
    ifreq value{};
    return request(SIOCGIFMTU, value) ? static_cast<u16>(std::clamp(value.ifr_mtu, 68, 65535)) : 1500;
  }
  bool set(unsigned long number, u32 address) const {
    ifreq value{};
    sockaddr_in place{};
    place.sin_family = AF_INET;
    place.sin_addr.s_addr = htonl(address);
    memcpy(&value.ifr_addr, &place, sizeof(place));
    return request(number, value);
  }

 private:
  std::string name_;
  host::FileDescriptor socket_;
};

// Does a route other than the default lead into this subnet or through it?
bool is_taken(u32 subnet) {
  std::ifstream routes("/proc/thread-self/net/route");
  std::string line;
  std::getline(routes, line);
  while (std::getline(routes, line)) {
    char name[64];
    unsigned destination, gateway, flags, references, use, metric, mask;
    if (sscanf(line.c_str(), "%63s %x %x %x %u %u %u %x", name, &destination, &gateway, &flags, &references, &use, &metric, &mask) != 8) continue;
    u32 common = ntohl(mask) & kSubnetMask;
    if (mask != 0 && ((ntohl(destination) ^ subnet) & common) == 0) return true;
  }
  return false;
}

// Interfaces made at the same time have different numbers, so they begin to search in different places.
u32 free_subnet(const std::string& name) {
  size_t digits = name.find_last_not_of("0123456789");
  u32 first = static_cast<u32>(strtoul(name.c_str() + (digits == std::string::npos ? 0 : digits + 1), nullptr, 10)) % kSubnetCount;
  for (u32 i = 0; i < kSubnetCount; i += 97) {  // far from the first try, which another may be making
    u32 subnet = kSubnets + (first + i) % kSubnetCount * 4;
    if (!is_taken(subnet)) return subnet;
  }
  throw MonitorError("no subnet of 10.83.0.0/16 is free for a TAP interface; make one by hand, and give its name");
}

void set_up(const Interface& interface, TapResult& result) {
  u32 subnet = free_subnet(result.name);
  bool done = interface.set(SIOCSIFADDR, subnet + 1) && interface.set(SIOCSIFNETMASK, kSubnetMask) && interface.bring_up();
  if (!done) throw_errno("giving " + result.name + " an address");
  result.host_address = text_of(subnet + 1);
  result.guest_address = text_of(subnet + 2);
  result.prefix_bits = kPrefixBits;
}

[[noreturn]] void explain(int error, const std::string& name, bool existed) {
  errno = error;
  if (error == EPERM && existed) throw_errno("using the TAP interface " + name, "it is somebody else's; " + how_to_make("another"));
  if (error == EPERM) throw_errno("making a TAP interface", how_to_make(name));
  if (error == EBUSY) throw_errno("using the TAP interface " + name, "another program uses it: each machine needs one of its own");
  if (error == EINVAL && existed) throw MonitorError(name + " is not a TAP interface, or one with several queues; " + how_to_make("another"));
  throw_errno("using the TAP interface " + name);
}

}  // namespace

TapResult open_tap(const std::string& name) {
  if (name.size() >= IFNAMSIZ || name.find_first_of("/% :") != std::string::npos) throw MonitorError("not a name of a network interface: " + name);
  TapResult result;
  result.fd = host::FileDescriptor(open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!result.fd)
    throw_errno("opening /dev/net/tun", errno == EACCES ? "its mode should be 0666" : "the host has no TAP interfaces; try: sudo modprobe tun");
  bool existed = !name.empty() && Interface(name).exists();
  // A misspelt name must not become an interface that nobody looks for.
  if (!name.empty() && !existed)
    throw MonitorError("there is no network interface " + name + "; leave the name out to have one made, or: " + how_to_make(name));
  ifreq request{};
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  std::string wanted = name.empty() ? "husk%d" : name;
  memcpy(request.ifr_name, wanted.data(), wanted.size());
  if (ioctl(result.fd.get(), TUNSETIFF, &request) != 0) explain(errno, name, existed);
  result.name = request.ifr_name;
  int header_size = sizeof(abi::virtio::NetHeader);
  if (ioctl(result.fd.get(), TUNSETVNETHDRSZ, &header_size) != 0 || ioctl(result.fd.get(), TUNSETOFFLOAD, kAllOffloads) != 0) {
    throw_errno("setting up the TAP interface " + result.name);
  }
  Interface interface(result.name);
  if (!existed) set_up(interface, result);
  if (!interface.is_up() && !interface.bring_up()) {
    throw_errno("the TAP interface " + result.name + " is down; setting it up", "sudo ip link set " + result.name + " up");
  }
  result.mtu = interface.mtu();
  return result;
}

void set_offloads(int tap_fd, u64 features) {
  auto has = [features](u32 bit) { return (features & abi::virtio::feature_bit(bit)) != 0; };
  u32 offloads = has(abi::virtio::kNetFeatureGuestChecksum) ? TUN_F_CSUM : 0;
  if (offloads != 0 && has(abi::virtio::kNetFeatureGuestTcp4)) offloads |= TUN_F_TSO4;
  if (offloads != 0 && has(abi::virtio::kNetFeatureGuestTcp6)) offloads |= TUN_F_TSO6;
  if (offloads != kAllOffloads) ioctl(tap_fd, TUNSETOFFLOAD, offloads);  // open_tap() set them all
}

}  // namespace husk::vmm::net
