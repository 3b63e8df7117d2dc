// The jail around the monitor's process: what a guest that broke out of its machine would find is nearly nothing.
//
// Two steps, both for the process's only thread. detach(): at the start, before anything of value is open: inherited descriptors closed, name
// spaces of its own where allowed. enter(): when everything is open: empty root directory, an unprivileged user, no
// capabilities, no new privileges, resource limits, and a seccomp(2) allow-list of what the monitor does while a guest runs. Threads that are
// started afterwards are inside. No network name space: it costs 0.2 to 0.5 ms, and the allow-list has no socket(2).
//
// A forbidden system call ends the process with status 125 and one line that names its number.
#pragma once

#include <linux/filter.h>

#include <string>
#include <vector>

namespace husk::vmm::sandbox {

// What was achieved; for `husk doctor` and the log.
struct Report {
  bool user_namespace = false, namespaces = false, empty_root = false, other_user = false, seccomp = false;
};

void close_inherited_descriptors();
void detach(Report& report);
// Throws MonitorError only if no_new_privs or seccomp fail: the rest is best effort, since it depends on the caller's rights.
void enter(Report& report);

// The parts of enter(), for a process that opens files by itself (QEMU) or needs an allow-list of its own (vmm/net/user_jail.cc).
constexpr unsigned kNobody = 65534;
void leave_file_system(Report& report);
constexpr int kNoCapability = -1;
void give_up_privileges(Report& report, int kept = kNoCapability);  // in place of root: kNobody; `kept`: a CAP_ number
void install_filter(std::vector<sock_filter> filter);

}  // namespace husk::vmm::sandbox
