// `--timeline`: when what happened in a start, in milliseconds since the command began, and what the run used.
#pragma once

#include <string>

#include "vmm/monitor.h"

namespace husk::cli {

u64 monotonic_ns();

struct Timeline {
  u64 command_start_ns = 0, image_ready_ns = 0;
  bool kvm = true;
  std::string describe(const vmm::MonitorResult& result, bool json) const;
};

}  // namespace husk::cli
