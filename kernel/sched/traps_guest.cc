// The C++ side of entry.S: what an upcall means, and the work before a return to the program.
#include "kernel/sched/traps.h"

#include "base/format.h"
#include "base/panic.h"
#include "kernel/cpuid.h"
#include "kernel/log.h"
#include "kernel/mem/user_copy.h"
#include "kernel/sched/sched.h"

extern "C" {
[[noreturn]] void husk_enter_program(husk::TrapFrame* frame);
void kernel_syscall_entry();
void kernel_cpuid_entry();
}

namespace husk::sched {
namespace {

constexpr u64 kPageFaultVector = 14;
// Page-fault error code, Intel SDM 3A §4.7.
constexpr u64 kFaultWrite = 2, kFaultFetch = 16;

constinit TrapHooks hooks{};

u64& scratch_word(u64 offset) { return this_cpu().shared->scratch[(offset - HUSK_VCPU_SCRATCH) / sizeof(u64)]; }

mem::Access access_of(const TrapFrame& frame) {
  if (frame.error & kFaultFetch) return mem::Access::execute;
  return frame.error & kFaultWrite ? mem::Access::write : mem::Access::read;
}

[[noreturn]] void panic_at(const TrapFrame& frame) {
  char text[160];
  format_to(text, sizeof(text), "exception %lu (error %#lx, address %#lx) in the kernel at %#lx, rsp %#lx", frame.vector, frame.error, frame.address,
            frame.rip, frame.rsp);
  panic_with_registers(frame, text);
}

}  // namespace

void set_trap_hooks(const TrapHooks& new_hooks) { hooks = new_hooks; }

void set_syscall_table(const SyscallFunction* table) {
  scratch_word(HUSK_CPU_DISPATCH) = reinterpret_cast<u64>(table);
  this_cpu().shared->syscall_entry = reinterpret_cast<u64>(&kernel_syscall_entry);
  this_cpu().shared->cpuid_entry = reinterpret_cast<u64>(&kernel_cpuid_entry);
}

void set_answer(u32 index, u64 result) {
  HUSK_ASSERT(index < abi::kAnsweredCallCount);
  this_cpu().shared->answers[index] = result + 1;
}

void enter_program() { husk_enter_program(current()->frame()); }

extern "C" {

void husk_cpuid_from_program(TrapFrame& frame) {
  CpuidResult result = cpuid(static_cast<u32>(frame.rax), static_cast<u32>(frame.rcx));
  frame.rax = result.eax;
  frame.rbx = result.ebx;
  frame.rcx = result.ecx;
  frame.rdx = result.edx;
}

// `frame` is the top of the current thread's stack.
void husk_upcall_from_program(TrapFrame& frame) {
  if (frame.vector >= HUSK_VECTOR_EVENT) {
    this_cpu().shared->interrupt_pending = 1;  // the return path does the rest
  } else if (frame.vector == kPageFaultVector) {
    (void)hooks.page_fault(frame, access_of(frame), true);
  } else {
    hooks.exception(frame);
  }
}

// An exception of kernel code: a copy from or to the program's memory, or a bug.
void husk_upcall_from_kernel(TrapFrame& frame) {
  u64 fixup = frame.vector == kPageFaultVector ? mem::user_copy_fixup(frame.rip) : 0;
  if (fixup == 0) panic_at(frame);
  if (frame.address < kUserEnd && hooks.page_fault(frame, access_of(frame), false)) return;
  frame.rip = fixup;
}

void husk_return_work(TrapFrame& frame) {
  u8& work = this_cpu().shared->kernel_work[0];
  do {
    if (handle_work() && hooks.pre_empted != nullptr) hooks.pre_empted(frame);
    if (work & kWorkSignal) hooks.before_return(frame);
  } while ((work & ~kWorkFullReturn) != 0);
  work = 0;
}

[[noreturn]] void husk_kernel_stack_overflow(u64 rip, u64 address, u64 frame_pointer) {
  TrapFrame frame{.rip = rip, .rbp = frame_pointer, .vector = kPageFaultVector, .address = address};
  panic_with_registers(frame, "kernel stack overflow");
}

}  // extern "C"
}  // namespace husk::sched
