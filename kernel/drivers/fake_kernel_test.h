// What a network driver needs of the kernel, for one hosted program: physical addresses are pointers, memory can run out.
// Included by exactly one source file of a program.
#pragma once

#include <map>

#include "kernel/drivers/fake_device_test.h"
#include "kernel/log.h"
#include "kernel/mem/frames.h"
#include "kernel/random.h"
#include "kernel/sched/sched.h"

namespace {
bool no_memory = false;
}

// What the kernel asks for without panic can be refused.
void* operator new(size_t size, const std::nothrow_t&) noexcept { return no_memory ? nullptr : ::operator new(size); }

namespace husk {
void random_bytes(void* to, size_t size) { memset(to, 0xff, size); }
int log_lines = 0;
void log(LogLevel, const char*, ...) { ++log_lines; }

namespace mem {
std::map<u64, unsigned> queue_memory;
Result<PhysAddr> allocate_frames(unsigned order, Zeroed) {
  auto* memory = new (std::align_val_t(kPageSize)) u8[kPageSize << order]();
  queue_memory[reinterpret_cast<u64>(memory)] = order;
  return PhysAddr{reinterpret_cast<u64>(memory)};
}
void free_frames(PhysAddr frame, unsigned) {
  queue_memory.erase(frame.value);
  ::operator delete[](reinterpret_cast<void*>(frame.value), std::align_val_t(kPageSize));
}
u8* direct(PhysAddr address) { return reinterpret_cast<u8*>(address.value); }
PhysAddr direct_to_phys(const void* pointer) { return PhysAddr{reinterpret_cast<u64>(pointer)}; }
u64 free_memory = 1 * kGiB;
MemoryStatistics memory_statistics() { return {1 * kGiB, free_memory, 0}; }
void free_queue_memory() {  // a driver lives for ever, a test does not
  while (!queue_memory.empty()) free_frames({queue_memory.begin()->first}, 0);
}
}  // namespace mem

namespace sched {
int expectations = 0;
void expect_events() { ++expectations; }
}  // namespace sched

}  // namespace husk
