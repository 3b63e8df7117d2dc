// See vmm/net/user_network.h.
#include "vmm/net/user_network.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/monitor_error.h"
#include "vmm/net/user_process.h"

namespace husk::vmm::net {
namespace {

constexpr int kBufferSize = 4 * 1024 * 1024;  // some sixty frames of the largest size
constexpr int kOpenTimeoutMs = 10'000, kEndTimeoutMs = 1'000;

void enlarge_buffers(int fd) {
  for (auto [forced, ordinary] : {std::pair(SO_SNDBUFFORCE, SO_SNDBUF), std::pair(SO_RCVBUFFORCE, SO_RCVBUF)}) {
    if (setsockopt(fd, SOL_SOCKET, forced, &kBufferSize, sizeof(kBufferSize)) != 0) {
      setsockopt(fd, SOL_SOCKET, ordinary, &kBufferSize, sizeof(kBufferSize));
    }
  }
}

std::string endpoint(const PublishedPort& port) {
  return "port " + std::to_string(port.host_port) + (port.udp ? "/udp" : "") + " of " + port.host_address;
}

std::string why_not_open(const PublishedPort& port, int error) {
  std::string guest = std::to_string(port.guest_port) + (port.udp ? "/udp" : "");
  if (error == EADDRINUSE) return endpoint(port) + " is already in use; choose another with -p HOSTPORT:" + guest;
  if (error == EACCES) return endpoint(port) + " needs privileges; choose one from 1024 on with -p HOSTPORT:" + guest;
  if (error == EADDRNOTAVAIL) return endpoint(port) + ": no interface of this host has that address; see: ip address";
  return endpoint(port) + " cannot be opened: " + strerror(error) + "; choose another with -p HOSTPORT:" + guest;
}

}  // namespace

UserNetwork::UserNetwork(const UserNetworkOptions& options) : options_(options) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) throw_errno("making the user-mode network");
  ours_ = host::FileDescriptor(pair[0]);
  host::FileDescriptor theirs(pair[1]);
  enlarge_buffers(pair[0]);
  enlarge_buffers(pair[1]);
  pid_t parent = getpid();
  process_ = fork();
  if (process_ == 0) run_user_process(theirs.get(), parent, options_);
  if (process_ < 0) throw_errno("starting the user-mode network");
  end_ = host::FileDescriptor(static_cast<int>(syscall(SYS_pidfd_open, process_, 0)));
  // Without ports nobody waits for a message: the pair is for frames from now on.
  if (options_.ports.empty()) fcntl(ours_.get(), F_SETFL, O_NONBLOCK);
}

const std::vector<PublishedPort>& UserNetwork::wait_until_open() {
  if (options_.ports.empty()) return options_.ports;
  UserReport report{};
  pollfd wait{ours_.get(), POLLIN, 0};
  while (poll(&wait, 1, kOpenTimeoutMs) < 0 && errno == EINTR) {}
  ssize_t size = recv(ours_.get(), &report, sizeof(report), MSG_DONTWAIT);
  if (size != sizeof(report)) throw MonitorError("the user-mode network ended while it started; see: husk doctor");
  if (report.text[0] != '\0') throw MonitorError(std::string(report.text, strnlen(report.text, sizeof(report.text))));
  if (report.error != 0) throw MonitorError(why_not_open(options_.ports.at(report.failed_port), report.error));
  for (size_t i = 0; i < options_.ports.size(); ++i) {
    if (options_.ports[i].host_port == 0) options_.ports[i].host_port = report.host_ports[i];
  }
  fcntl(ours_.get(), F_SETFL, O_NONBLOCK);
  return options_.ports;
}

NetworkDevice UserNetwork::device() const {
  NetworkDevice device;
  device.fd = ours_.get();
  memcpy(device.mac, options_.mac, sizeof(device.mac));
  device.mtu = options_.mtu;
  device.end = end_.get();
  return device;
}

void UserNetwork::stop() {
  ours_.reset();
  if (process_ > 0) {
    pollfd wait{end_.get(), POLLIN, 0};
    while (end_ && poll(&wait, 1, kEndTimeoutMs) < 0 && errno == EINTR) {}
    // What does not end dies with this process: PR_SET_PDEATHSIG.
    while (waitpid(process_, nullptr, end_ ? WNOHANG : 0) < 0 && errno == EINTR) {}
  }
  process_ = -1;
  end_.reset();
}

}  // namespace husk::vmm::net
