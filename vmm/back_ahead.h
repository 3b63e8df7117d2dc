// Gives the guest host memory a little before it touches it (abi/monitor_device.h, kMonitorBack).
//
// The host clears what it gives, 0.25 ms for 2 MiB: nearly all of the time that a first touch takes. While the guest walks upwards through
// new memory, the I/O thread walks towards it from the end of what the kernel has mapped ahead, on another CPU. It is advice from the guest: a wrong one
// costs the guest its own memory. A guest that starts comes to one large page after the other, too: it has the next one before it gets there.
#pragma once

#include <atomic>

#include "vmm/guest_memory.h"

namespace husk::vmm {

class BackAhead {
 public:
  explicit BackAhead(const GuestMemory& memory) : memory_(memory) {}
  void ask(u32 register_value) { left_.store(register_value, std::memory_order_relaxed); }  // vCPU thread; in place of what was asked before
  // vCPU thread: something below `end` was mapped. True if that asked for the page behind it: when the guest comes to a further large page, but for the
  // first one, for what needs no second shall not get one.
  bool reached(u64 end);
  bool step();  // I/O thread: one large page; false: nothing was left

 private:
  const GuestMemory& memory_;
  u64 reached_ = 1;           // large pages; vCPU thread
  std::atomic<u32> left_{0};  // as in the register
};

}  // namespace husk::vmm
