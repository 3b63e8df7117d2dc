// Interfaces by index, name and address, and the ioctls that ask about them. netdevice(7).
#undef linux
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/in.h>
#include <linux/sockios.h>

#include "kernel/linux/inet_socket.h"
#include "kernel/linux/network_info.h"
#include "kernel/mem/user_copy.h"

namespace husk::linux {
namespace {

template <typename Match>
Result<net::InterfaceStatus> find_interface(Match match) {
  InterfaceList list = TRY(InterfaceList::of(*TRY(network())));
  for (const net::InterfaceStatus& status : list) {
    if (match(status)) return status;
  }
  return Error(ENODEV);
}

}  // namespace

Result<net::InterfaceStatus> interface_at(u32 index) {
  return find_interface([&](const net::InterfaceStatus& status) { return status.index == index; });
}

Result<net::InterfaceStatus> interface_named(std::string_view name) {
  return find_interface([&](const net::InterfaceStatus& status) { return name == status.name; });
}

Result<u32> interface_with(const net::IpAddress& address) {
  if (address.is_loopback()) return u32{1};
  net::Stack& stack = *TRY(network());
  auto status = TRY(find_interface([&](const net::InterfaceStatus& candidate) {
    for (const net::InterfaceAddress& own : AddressList(stack, candidate.index)) {
      if (own.address == address) return true;
    }
    return false;
  }));
  return status.index;
}

// --- ioctls ---------------------------------------------------------------------------------------------------------------------

namespace {

void put_v4(ifreq& request, const net::IpAddress& address) {
  vfs::SocketAddress text = write_address(kInet, {address, 0, 0});
  memcpy(&request.ifr_addr, text.bytes, sizeof(sockaddr_in));
}

Result<i64> list_addresses(u64 at) {
  ifconf header = TRY(mem::read_user(mem::UserPtr<ifconf>(at)));
  net::Stack& stack = *TRY(network());
  InterfaceList list = TRY(InterfaceList::of(stack));
  const u64 out = reinterpret_cast<u64>(header.ifc_buf);
  size_t size = 0, room = header.ifc_len < 0 ? 0 : static_cast<size_t>(header.ifc_len);
  for (const net::InterfaceStatus& status : list) {
    for (const net::InterfaceAddress& own : AddressList(stack, status.index)) {
      if (!own.address.is_v4()) continue;
      ifreq entry{};
      memcpy(entry.ifr_name, status.name, IFNAMSIZ);
      put_v4(entry, own.address);
      if (out != 0) {
        if (size + sizeof(entry) > room) break;
        TRY(mem::copy_to_user(out + size, &entry, sizeof(entry)));
      }
      size += sizeof(entry);
    }
  }
  header.ifc_len = static_cast<int>(size);
  TRY(mem::write_user(mem::UserPtr<ifconf>(at), header));
  return i64{0};
}

Result<void> answer_address(u32 question, const net::InterfaceStatus& status, ifreq& request) {
  for (const net::InterfaceAddress& own : AddressList(*TRY(network()), status.index)) {
    if (!own.address.is_v4()) continue;
    put_v4(request, question == SIOCGIFNETMASK   ? net_mask(own.prefix_bits)
                    : question != SIOCGIFBRDADDR ? own.address
                    : status.loopback            ? net::IpAddress::v4(0, 0, 0, 0)
                                                 : broadcast_of(own));
    return {};
  }
  return Error(EADDRNOTAVAIL);
}

Result<void> answer(u32 question, const net::InterfaceStatus& status, ifreq& request) {
  switch (question) {
    case SIOCGIFFLAGS: request.ifr_flags = static_cast<short>(linux_interface_flags(status)); return {};
    case SIOCGIFMTU: request.ifr_mtu = static_cast<int>(status.mtu); return {};
    case SIOCGIFINDEX: request.ifr_ifindex = static_cast<int>(status.index); return {};
    case SIOCGIFMETRIC: request.ifr_ifindex = 0; return {};
    case SIOCGIFTXQLEN: request.ifr_ifindex = 1000; return {};
    case SIOCGIFHWADDR:
      request.ifr_hwaddr = {};
      request.ifr_hwaddr.sa_family = linux_interface_type(status);
      memcpy(request.ifr_hwaddr.sa_data, status.mac, 6);
      return {};
    default: return answer_address(question, status, request);
  }
}

}  // namespace

Result<i64> interface_ioctl(u32 request, u64 argument) {
  switch (request) {
    case SIOCGIFCONF: return list_addresses(argument);
    case SIOCSIFFLAGS:
    case SIOCSIFADDR:
    case SIOCSIFNETMASK:
    case SIOCSIFMTU:
    case SIOCADDRT:
    case SIOCDELRT: return Error(EPERM);
    case SIOCETHTOOL: return Error(EOPNOTSUPP);
    case SIOCGIFNAME:
    case SIOCGIFFLAGS:
    case SIOCGIFMTU:
    case SIOCGIFINDEX:
    case SIOCGIFMETRIC:
    case SIOCGIFTXQLEN:
    case SIOCGIFHWADDR:
    case SIOCGIFADDR:
    case SIOCGIFDSTADDR:
    case SIOCGIFBRDADDR:
    case SIOCGIFNETMASK: break;
    default: return Error(ENOTTY);
  }
  ifreq entry = TRY(mem::read_user(mem::UserPtr<ifreq>(argument)));
  if (request == SIOCGIFNAME) {
    auto status = TRY(interface_at(static_cast<u32>(entry.ifr_ifindex)));
    memcpy(entry.ifr_name, status.name, IFNAMSIZ);
  } else {
    auto status = TRY(interface_named({entry.ifr_name, strnlen(entry.ifr_name, IFNAMSIZ)}));
    TRY(answer(request, status, entry));
  }
  TRY(mem::write_user(mem::UserPtr<ifreq>(argument), entry));
  return i64{0};
}

}  // namespace husk::linux
