// User-mode networking: the guest's frames become ordinary sockets of the host, without any privilege, as behind a home router.
//
// The TCP/IP stack that does this, libslirp, parses what a hostile guest sends. So it lives in a process of its own: forked from the command
// while that is still small and has one thread, joined to the monitor by a SOCK_SEQPACKET pair (a frame is a message), and jailed
// (user_jail.h) before it sees the first frame. libslirp is loaded there, at once if ports are published, else when the guest first wants
// something. If the process dies, the guest's network is gone and the machine goes on; when the monitor's end closes, it ends.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/types.h"
#include "host/file_descriptor.h"
#include "vmm/monitor.h"

namespace husk::vmm::net {

// Where everything is. The IPv6 prefix is a unique local one (RFC 4193) that hosts are not likely to use themselves.
constexpr const char* kUserGuest4 = "10.0.2.15";
constexpr const char* kUserGateway4 = "10.0.2.2";
constexpr const char* kUserNameServer4 = "10.0.2.3";
constexpr const char* kUserGuest6 = "fd68:7573:6b00::15";
constexpr const char* kUserGateway6 = "fd68:7573:6b00::2";
constexpr const char* kUserNameServer6 = "fd68:7573:6b00::3";
constexpr u8 kUserPrefixBits4 = 24, kUserPrefixBits6 = 64;
constexpr u16 kUserMtu = 65520;

struct PublishedPort {
  std::string host_address = "0.0.0.0";  // numeric; an IPv6 address leads to the guest's IPv6 address
  u16 host_port = 0;                     // 0: any that is free
  u16 guest_port = 0;
  bool udp = false;
};

struct UserNetworkOptions {
  u8 mac[6] = {};  // the guest's
  std::vector<PublishedPort> ports;
  u16 mtu = kUserMtu;
  bool host_loopback = false;  // kUserGateway4 and 6 are the host's own 127.0.0.1 and ::1
};

class UserNetwork {
 public:
  // Forks: the process must have one thread. Throws MonitorError.
  explicit UserNetwork(const UserNetworkOptions& options);
  ~UserNetwork() { stop(); }
  UserNetwork(const UserNetwork&) = delete;

  // Blocks until the ports are open; `host_port` of those that were 0 is now known. Throws MonitorError. At once if none are published.
  const std::vector<PublishedPort>& wait_until_open();
  NetworkDevice device() const;
  pid_t process() const { return process_; }
  // The process is gone when this returns, or, if it does not end by itself (a guest may have broken into it), will be with ours. For after the
  // machine has ended. Allowed in the monitor's jail.
  void stop();

 private:
  UserNetworkOptions options_;
  host::FileDescriptor ours_;
  pid_t process_ = -1;
  host::FileDescriptor end_;  // pidfd_open(2): readable when the process has ended
};

}  // namespace husk::vmm::net
