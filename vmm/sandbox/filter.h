// The seccomp allow-list, as a BPF program made by hand: building and installing it takes some ten microseconds.
#pragma once

#include <linux/filter.h>

#include <vector>

namespace husk::vmm::sandbox {

std::vector<sock_filter> make_filter();

}  // namespace husk::vmm::sandbox
