// libslirp, loaded at run time, and the loop that drives it: frames on the pair, sockets of the host, timers.
//
// Used only in the process of user_network.h, which has one thread. The pair blocks when written: a guest that does not take its frames
// stops the loop, and with it the senders on the host, instead of losing frames.
#pragma once

#include <poll.h>
#include <slirp/libslirp.h>

#include <memory>
#include <span>
#include <vector>

#include "vmm/net/user_endings.h"
#include "vmm/net/user_frame.h"
#include "vmm/net/user_jail.h"
#include "vmm/net/user_network.h"
#include "vmm/net/user_process.h"

namespace husk::vmm::net {

class SlirpLoop {
 public:
  // Throws MonitorError if libslirp cannot be loaded.
  SlirpLoop(int pair, const UserNetworkOptions& options);
  // errno; `host_port` 0 is chosen, the answer is in `chosen`.
  int publish(const PublishedPort& port, u16& chosen);
  void input(std::span<const u8> frame);
  void wait_for_guest() const;
  [[noreturn]] void run();

 private:
  struct Timer {
    SlirpTimerCb callback;
    void* opaque;
    i64 expires_ms = -1;
  };
  struct Library {
    decltype(&slirp_new) make;
    decltype(&slirp_input) input;
    decltype(&slirp_pollfds_fill) pollfds_fill;
    decltype(&slirp_pollfds_poll) pollfds_poll;
    decltype(&slirp_add_hostxfwd) add_hostxfwd;
  };
  void load_library();
  void introduce_guest(const u8* mac);
  void deepen_backlogs();
  void end_connections();
  void receive(bool hung_up);
  void run_timers();
  void shorten_to_timers(u32& timeout_ms) const;
  static const SlirpCb& callbacks();
  static SlirpLoop& of(void* opaque) { return *static_cast<SlirpLoop*>(opaque); }

  int pair_;
  Library library_{};
  Slirp* slirp_ = nullptr;
  std::unique_ptr<LoopbackGuard> guard_;
  Endings endings_;
  std::vector<int> listeners_;
  size_t descriptors_max_ = kUserDescriptorsMax;
  std::vector<pollfd> polled_;
  std::vector<std::unique_ptr<Timer>> timers_;
  std::vector<u8> frame_;
};

}  // namespace husk::vmm::net
