// The whole life of the process behind user_network.h.
#pragma once

#include <sys/types.h>

#include "vmm/net/user_network.h"

namespace husk::vmm::net {

constexpr size_t kPublishedPortsMax = 1024;

// The first message to the monitor, only when ports are published: all are open, or why not.
struct UserReport {
  i32 error;        // errno
  u32 failed_port;  // index
  char text[240];   // if not empty: another failure, in words
  u16 host_ports[kPublishedPortsMax];
};

[[noreturn]] void run_user_process(int pair, pid_t parent, const UserNetworkOptions& options);

}  // namespace husk::vmm::net
