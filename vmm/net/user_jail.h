// The jail of the user-mode network's process: empty root, unprivileged user, no capabilities, and system calls for internet sockets only.
//
// libslirp reads /etc/resolv.conf while it runs, to find the name server. Nothing can be opened in the jail: whatever is "opened" is a copy
// of the descriptor of that file, taken at the start, which the handler of SIGSYS hands out.
#pragma once

#include <sys/types.h>

namespace husk::vmm::net {

constexpr unsigned kUserDescriptorsMax = 8192;  // of the process: one for each connection

// Both for the only thread, whose parent this is: without it, it ends. Both throw MonitorError.
// The first step, before a byte of the guest's is read and while the library has still to be loaded: root no longer, and nothing but chroot(2) for the second.
void leave_root(pid_t parent);
// Behind this a forbidden call, and a crash, end the process with one line on stderr.
void enter_user_jail(pid_t parent);

}  // namespace husk::vmm::net
