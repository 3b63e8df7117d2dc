// The waist: everything that the kernel asks of the machine under it. One implementation is linked in:
//   platform/vm/    through the nub and the monitor device (or a PC's local APIC)
//   platform/fake/  for hosted tests: virtual time, recorded page tables
//
// Called by kernel code on the current vCPU with upcalls masked. Nothing here blocks but halt().
#pragma once

#include <span>

#include "abi/boot_info.h"
#include "base/panic.h"
#include "base/result.h"
#include "base/types.h"

namespace husk::platform {

void init(const abi::BootInfo& info);  // first of all

// --- time and idling -------------------------------------------------------------------------------------------
u64 ticks();                         // TSC
void arm_timer(u64 deadline_ticks);  // an event upcall at that time; 0 switches it off; only noted until one of these two:
void before_program();               // on the way back to the program when kWorkPlatform is raised: tells the machine
void acknowledge_event();            // clears interrupt_pending; before the event's causes are looked for
bool halting_serves();               // devices have their turn in halt(), and only there: polling them first is in vain
void halt();                         // until an event is pending or the timer is due; may return early
[[noreturn]] void power_off(u32 status);

// --- page tables -----------------------------------------------------------------------------------------------
// Space 0 is the first address space. The upper half is the same in all of them.
enum Protection : u32 { kRead = 1, kWrite = 2, kExecute = 4, kUncached = 8, kJit = 16 };  // = abi::NubFlags

// Collects page-table work and hands it to the nub in batches. Operations take effect in order, at the latest at flush().
// Errors (EPERM: an invariant of the nub forbids it; ENOMEM: no page-table page left) come from the call that flushed.
class PageTableBatch {
 public:
  explicit PageTableBatch(u32 space) : space_(space) {}
  ~PageTableBatch() { HUSK_ASSERT(count_ == 0 && error_ == 0); }
  Result<void> map(VirtAddr va, PhysAddr pa, u64 length, u32 protection);
  Result<void> unmap(VirtAddr va, u64 length);
  Result<void> protect(VirtAddr va, u64 length, u32 protection);
  Result<void> copy(PhysAddr to, PhysAddr from, u64 length);  // of frames; whoever backs them natively may do it
  Result<void> flush();

 private:
  friend struct BatchQueue;
  u32 space_;
  u32 count_ = 0;
  int error_ = 0;
};
// KVM shadows the page tables: the first use of each page costs ten times what the host needs to copy it to memory where it maps neighbours along.
bool first_use_is_dear();
// The program is about to use these large pages, from the first to the last: advice to whoever gives the machine its memory.
void expect_use(PhysAddr start, u64 length);
Result<u32> create_space();
void switch_space(u32 space);
void destroy_space(u32 space);
Result<void> seal(VirtAddr va, u64 length);  // kernel half: read-only from now on, for ever

// --- early messages, before any driver -------------------------------------------------------------------------
void debug_write(const char* text, size_t length);

}  // namespace husk::platform
