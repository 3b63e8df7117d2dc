// See vmm/net/user_slirp.h. The interface: slirp/libslirp.h.
#include "vmm/net/user_slirp.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "host/file_descriptor.h"
#include "vmm/monitor_error.h"
#include "vmm/net/user_frame.h"

namespace husk::vmm::net {
namespace {

constexpr const char* kLibrary = "libslirp.so.0";
constexpr size_t kFrameMax = kUserMtu + 14;
constexpr int kFramesPerRound = 64;
constexpr int kPortAttempts = 16;
constexpr size_t kDescriptorsSpare = 64;  // the listeners themselves, files, and what a round opens

i64 now_ns() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return i64{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

in_addr address4(const char* text) {
  in_addr out{};
  inet_pton(AF_INET, text, &out);
  return out;
}
in6_addr address6(const char* text) {
  in6_addr out{};
  inet_pton(AF_INET6, text, &out);
  return out;
}

struct Endpoint {
  sockaddr_storage storage{};
  socklen_t size = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  bool is_ip6() const { return storage.ss_family == AF_INET6; }
  u16 port() const {
    return ntohs(is_ip6() ? reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_port : reinterpret_cast<const sockaddr_in*>(&storage)->sin_port);
  }
};

Endpoint make_endpoint(const char* address, u16 port) {
  Endpoint out;
  if (strchr(address, ':') != nullptr) {
    sockaddr_in6 ip6{.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = address6(address)};
    memcpy(&out.storage, &ip6, out.size = sizeof(ip6));
  } else {
    sockaddr_in ip4{.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = address4(address)};
    memcpy(&out.storage, &ip4, out.size = sizeof(ip4));
  }
  return out;
}

// A port that was free a moment ago; 0 and errno if there is none.
u16 find_free_port(const PublishedPort& port) {
  Endpoint endpoint = make_endpoint(port.host_address.c_str(), 0);
  host::FileDescriptor probe(socket(endpoint.storage.ss_family, port.udp ? SOCK_DGRAM : SOCK_STREAM, 0));
  if (!probe || bind(probe.get(), endpoint.get(), endpoint.size) != 0 || getsockname(probe.get(), endpoint.get(), &endpoint.size) != 0) return 0;
  return endpoint.port();
}

int to_slirp(short events) {
  int out = 0;
  if (events & POLLIN) out |= SLIRP_POLL_IN;
  if (events & POLLOUT) out |= SLIRP_POLL_OUT;
  if (events & POLLPRI) out |= SLIRP_POLL_PRI;
  if (events & POLLERR) out |= SLIRP_POLL_ERR;
  if (events & POLLHUP) out |= SLIRP_POLL_HUP;
  return out;
}

short from_slirp(int events) {
  int out = 0;
  if (events & SLIRP_POLL_IN) out |= POLLIN;
  if (events & SLIRP_POLL_OUT) out |= POLLOUT;
  if (events & SLIRP_POLL_PRI) out |= POLLPRI;
  return static_cast<short>(out);  // errors are always reported
}

}  // namespace

const SlirpCb& SlirpLoop::callbacks() {
  static const SlirpCb table = {
      .send_packet = [](const void* frame, size_t size, void* self) -> ssize_t {
        const std::span<const u8> bytes(static_cast<const u8*>(frame), size);
        if (of(self).guard_) of(self).guard_->note_to_guest(bytes);
        of(self).endings_.note_to_guest(bytes);
        return send(of(self).pair_, frame, size, MSG_NOSIGNAL);
      },
      .guest_error = [](const char*, void*) {},
      .clock_get_ns = [](void*) -> int64_t { return now_ns(); },
      .timer_new = [](SlirpTimerCb callback, void* opaque, void* self) -> void* {
        return of(self).timers_.emplace_back(std::make_unique<Timer>(Timer{callback, opaque})).get();
      },
      .timer_free = [](void* timer, void* self) { std::erase_if(of(self).timers_, [&](const auto& each) { return each.get() == timer; }); },
      .timer_mod = [](void* timer, int64_t expires_ms, void*) { static_cast<Timer*>(timer)->expires_ms = expires_ms; },
      .register_poll_fd = [](int, void*) {},
      .unregister_poll_fd = [](int, void*) {},
      .notify = [](void*) {},
  };
  return table;
}

void SlirpLoop::load_library() {
  void* handle = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw MonitorError(std::string(dlerror()) + "; install it: apt-get install libslirp0");
  auto find = [handle](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
    if (function == nullptr) throw MonitorError(std::string(kLibrary) + " has no " + name + "; a newer one (4.6 or later) is needed");
  };
  find(library_.make, "slirp_new");
  find(library_.input, "slirp_input");
  find(library_.pollfds_fill, "slirp_pollfds_fill");
  find(library_.pollfds_poll, "slirp_pollfds_poll");
  find(library_.add_hostxfwd, "slirp_add_hostxfwd");
  // What a guest makes it complain about is no news for the user's terminal.
  using LogHandler = void (*)(const char*, int, const char*, void*);
  auto set_log_handler = reinterpret_cast<LogHandler (*)(LogHandler, void*)>(dlsym(handle, "g_log_set_default_handler"));
  if (set_log_handler != nullptr) set_log_handler([](const char*, int, const char*, void*) {}, nullptr);
}

SlirpLoop::SlirpLoop(int pair, const UserNetworkOptions& options) : pair_(pair), frame_(kFrameMax + 1) {
  load_library();
  rlimit allowed{};
  if (getrlimit(RLIMIT_NOFILE, &allowed) == 0) descriptors_max_ = std::min<size_t>(descriptors_max_, allowed.rlim_max);  // the jail cannot ask
  SlirpConfig config{};
  config.version = 1;  // all that is needed, and what every libslirp takes
  config.in_enabled = config.in6_enabled = true;
  config.vnetwork = address4("10.0.2.0");
  config.vnetmask = address4("255.255.255.0");
  config.vhost = address4(kUserGateway4);
  config.vdhcp_start = address4(kUserGuest4);
  config.vnameserver = address4(kUserNameServer4);
  config.vprefix_addr6 = address6("fd68:7573:6b00::");
  config.vprefix_len = kUserPrefixBits6;
  config.vhost6 = address6(kUserGateway6);
  config.vnameserver6 = address6(kUserNameServer6);
  config.if_mtu = config.if_mru = options.mtu;
  bool udp = std::any_of(options.ports.begin(), options.ports.end(), [](const PublishedPort& port) { return port.udp; });
  if (!options.host_loopback && udp) guard_ = std::make_unique<LoopbackGuard>();
  config.disable_host_loopback = !options.host_loopback && !guard_;
  slirp_ = library_.make(&config, &callbacks(), this);
  if (slirp_ == nullptr) throw MonitorError(std::string(kLibrary) + " refuses its configuration; install libslirp 4.6 or later");
  introduce_guest(options.mac);
}

// An announcement in the guest's name, so that the first connection from outside needs no ARP.
void SlirpLoop::introduce_guest(const u8* mac) {
  u8 frame[42] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1};
  in_addr guest = address4(kUserGuest4);
  memcpy(frame + 6, mac, 6);
  memcpy(frame + 22, mac, 6);
  memcpy(frame + 28, &guest, 4);
  memcpy(frame + 38, &guest, 4);
  library_.input(slirp_, frame, sizeof(frame));
}

// libslirp listens with a backlog of one: fifty clients at once would wait for their second attempt.
void SlirpLoop::deepen_backlogs() {
  listeners_.clear();
  for (int fd = 3; fd < static_cast<int>(kPublishedPortsMax) + 64; ++fd) {
    int listening = 0;
    socklen_t size = sizeof(listening);
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0 || listening == 0) continue;
    listen(fd, SOMAXCONN);
    listeners_.push_back(fd);
  }
}

int SlirpLoop::publish(const PublishedPort& port, u16& chosen) {
  Endpoint guest = make_endpoint(port.host_address.find(':') == std::string::npos ? kUserGuest4 : kUserGuest6, port.guest_port);
  int flags = (port.udp ? SLIRP_HOSTFWD_UDP : 0) | (guest.is_ip6() ? SLIRP_HOSTFWD_V6ONLY : 0);
  for (int attempt = 0;; ++attempt) {
    chosen = port.host_port != 0 ? port.host_port : find_free_port(port);
    if (chosen == 0) return errno;
    Endpoint host = make_endpoint(port.host_address.c_str(), chosen);
    errno = 0;
    if (library_.add_hostxfwd(slirp_, host.get(), host.size, guest.get(), guest.size, flags) == 0) break;
    int error = errno == 0 ? EIO : errno;
    if (port.host_port != 0 || error != EADDRINUSE || attempt == kPortAttempts) return error;
  }
  deepen_backlogs();
  return 0;
}

void SlirpLoop::input(std::span<const u8> frame) {
  if (guard_ && !guard_->allows_from_guest(frame)) return;
  if (judge_frame(frame) == FrameUse::drop) return;
  endings_.note_from_guest(frame);
  library_.input(slirp_, frame.data(), static_cast<int>(frame.size()));
  end_connections();
}

// Not from within libslirp's own work.
void SlirpLoop::end_connections() {
  while (auto reset = endings_.take()) library_.input(slirp_, reset->data(), static_cast<int>(reset->size()));
}

void SlirpLoop::receive(bool hung_up) {
  for (int i = 0; i < kFramesPerRound; ++i) {
    ssize_t size = recv(pair_, frame_.data(), frame_.size(), MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size < 0 || (size == 0 && hung_up)) _exit(0);  // the machine is off
    if (static_cast<size_t>(size) <= kFrameMax) input({frame_.data(), static_cast<size_t>(size)});
  }
}

void SlirpLoop::shorten_to_timers(u32& timeout_ms) const {
  for (const auto& timer : timers_) {
    if (timer->expires_ms < 0) continue;
    i64 left = std::max<i64>(timer->expires_ms - now_ns() / 1'000'000, 0);
    timeout_ms = static_cast<u32>(std::min<i64>(timeout_ms, left));
  }
}

void SlirpLoop::run_timers() {
  i64 now_ms = now_ns() / 1'000'000;
  for (size_t i = 0; i < timers_.size(); ++i) {
    Timer& timer = *timers_[i];
    if (timer.expires_ms < 0 || timer.expires_ms > now_ms) continue;
    timer.expires_ms = -1;
    timer.callback(timer.opaque);
  }
}

// Until the guest has said something, clients wait in the host's queues. What is sent to a machine that is just starting may be lost (QEMU's network
// device forgets it when the driver resets it), and libslirp's TCP would say it again 6 s later.
void SlirpLoop::wait_for_guest() const {
  pollfd guest{pair_, POLLIN, 0};
  while (poll(&guest, 1, -1) < 0 && errno == EINTR) continue;
}

void SlirpLoop::run() {
  for (;;) {
    polled_.assign(1, {pair_, POLLIN, 0});
    u32 timeout_ms = 1'000'000;
    library_.pollfds_fill(
        slirp_, &timeout_ms,
        [](int fd, int events, void* self) {
          // Without room for one more, clients wait in the host's queues, and no poll ends for them.
          const auto& listeners = of(self).listeners_;
          const bool full = of(self).polled_.size() + kDescriptorsSpare > of(self).descriptors_max_;
          if (full && std::find(listeners.begin(), listeners.end(), fd) != listeners.end()) events = 0;
          of(self).polled_.push_back({fd, from_slirp(events), 0});
          return static_cast<int>(of(self).polled_.size() - 1);
        },
        this);
    shorten_to_timers(timeout_ms);
    int ready = poll(polled_.data(), polled_.size(), static_cast<int>(timeout_ms));
    bool failed = ready < 0 && errno != EINTR;
    library_.pollfds_poll(
        slirp_, failed ? 1 : 0, [](int index, void* self) { return to_slirp(of(self).polled_[static_cast<size_t>(index)].revents); }, this);
    run_timers();
    end_connections();
    if (polled_[0].revents != 0) receive((polled_[0].revents & (POLLHUP | POLLERR)) != 0);
  }
}

}  // namespace husk::vmm::net
