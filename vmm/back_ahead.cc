// See vmm/back_ahead.h.
#include "vmm/back_ahead.h"

#include <sys/mman.h>

#include "abi/monitor_device.h"

namespace husk::vmm {

bool BackAhead::reached(u64 end) {
  const u64 pages = align_up(end, kHugePageSize) / kHugePageSize;
  if (pages <= reached_) return false;
  reached_ = pages;
  ask(static_cast<u32>(pages << abi::kMonitorBackCountBits | 1));
  return true;
}

bool BackAhead::step() {
  u32 left = left_.load(std::memory_order_relaxed);
  u64 count = left & ((1u << abi::kMonitorBackCountBits) - 1), first = left >> abi::kMonitorBackCountBits;
  if (count == 0) return false;
  if (!left_.compare_exchange_strong(left, left - 1, std::memory_order_relaxed)) return true;
  std::span<u8> page = memory_.range({(first + count - 1) * kHugePageSize}, kHugePageSize, Access::write);
  if (!page.empty()) (void)madvise(page.data(), page.size(), MADV_POPULATE_WRITE);  // a host that cannot: the guest's touch will
  return true;
}

}  // namespace husk::vmm
