// From the machine into C++: what entry.S calls, and what the Linux personality fills in.
//
// A TrapFrame lies at the top of the current thread's kernel stack whenever its program code is not running. A system call
// returns by a short path that reloads only what C++ does not keep; after anything else (an upcall, work to do) every register
// comes from the frame.
#pragma once

#include "base/types.h"
#include "kernel/cpu.h"
#include "kernel/mem/address_space.h"

namespace husk::sched {

struct TrapHooks {
  // The program, or a copy to or from its memory, touched a page that is not there. True: resolved, try again. False: from_program,
  // a signal has been raised; otherwise the copy gives EFAULT.
  bool (*page_fault)(TrapFrame& frame, mem::Access access, bool from_program);
  // Any other exception of the program (frame.vector, frame.error): raises a signal.
  void (*exception)(TrapFrame& frame);
  // The thread is interrupted() and about to return to the program: delivers signals (changes the frame) or exits.
  // frame.orig_rax is the number of the system call that ends, or -1.
  void (*before_return)(TrapFrame& frame);
  // Others ran since the thread was in the program, to which it is about to return. May be null.
  void (*pre_empted)(TrapFrame& frame);
};
void set_trap_hooks(const TrapHooks& hooks);

constexpr u32 kSyscallSlots = 512;
using SyscallFunction = i64 (*)(u64, u64, u64, u64, u64, u64);
// kSyscallSlots entries, none null. Numbers beyond give ENOSYS without a call. May be changed at any time (tracing).
void set_syscall_table(const SyscallFunction* table);

// From now on rewritten programs know the result of abi::kAnsweredCalls[index] without asking.
void set_answer(u32 index, u64 result);

// For system calls that changed the frame (rt_sigreturn, execve): the return takes every register from it. Only rax is the
// call's result as ever: rt_sigreturn gives frame.rax. They set frame.orig_rax to -1. `rip` must be canonical, cs and ss stay.
void return_with_frame();

// The first way of a thread into the program, from its entry function: with every register as in frame(). A Thread::Entry
// that returns does the same.
[[noreturn]] void enter_program();

}  // namespace husk::sched

namespace husk {
// husk::panic with the registers and the backtrace of where a trap hit. Defined by kernel/boot.
[[noreturn]] void panic_with_registers(const TrapFrame& frame, const char* message);
}  // namespace husk
