// Exceptions of the program become signals; page faults are resolved or become signals. Hooks of kernel/sched/traps.h.
//
// Vectors and what Linux makes of them: Intel SDM 3A §6.15, arch/x86/kernel/traps.c's behaviour as seen in siginfo.
#include <signal.h>
#include <string.h>

#include "kernel/linux/hooks.h"
#include "kernel/linux/linux.h"
#include "kernel/linux/task.h"
#include "kernel/log.h"
#include "kernel/mem/frames.h"
#include "kernel/mem/user_copy.h"
#include "kernel/sched/sched.h"

extern "C" husk::i64 sys_gettimeofday(husk::u64, husk::u64, husk::u64, husk::u64, husk::u64, husk::u64);
extern "C" husk::i64 sys_time(husk::u64, husk::u64, husk::u64, husk::u64, husk::u64, husk::u64);
extern "C" husk::i64 sys_getcpu(husk::u64, husk::u64, husk::u64, husk::u64, husk::u64, husk::u64);

namespace husk::linux {
namespace {

enum Vector : u64 {
  kDivide = 0,
  kDebug = 1,
  kBreakpoint = 3,
  kOverflow = 4,
  kBound = 5,
  kInvalidOpcode = 6,
  kSegmentNotPresent = 11,
  kStackFault = 12,
  kProtection = 13,
  kPageFault = 14,
  kX87 = 16,
  kAlignment = 17,
  kSimd = 19,
};
constexpr u64 kVsyscallStart = 0xffffffffff600000, kVsyscallEnd = kVsyscallStart + kPageSize;

SignalInfo fault_signal(int number, int code, u64 address) {
  SignalInfo info;
  info.number = number;
  info.code = code;
  info.fields.fault.address = address;
  return info;
}

// FPE_* from the exception bits that are set and not masked (same order in the x87 status word and in MXCSR).
int floating_point_code(u32 raised) {
  if ((raised & 1) != 0) return FPE_FLTINV;
  if ((raised & 4) != 0) return FPE_FLTDIV;
  if ((raised & 8) != 0) return FPE_FLTOVF;
  if ((raised & 0x12) != 0) return FPE_FLTUND;
  if ((raised & 0x20) != 0) return FPE_FLTRES;
  return 0;
}

int x87_code() {
  u16 status, control;
  asm("fnstsw %0" : "=m"(status));
  asm("fnstcw %0" : "=m"(control));
  return floating_point_code(status & ~control);
}

int simd_code() {
  u32 control;
  asm("stmxcsr %0" : "=m"(control));
  return floating_point_code(control & ~(control >> 7) & 0x3f);
}

SignalInfo signal_of(const TrapFrame& frame) {
  switch (frame.vector) {
    case kDivide: return fault_signal(SIGFPE, FPE_INTDIV, frame.rip);
    case kDebug: return fault_signal(SIGTRAP, TRAP_TRACE, frame.rip);
    case kBreakpoint: return kernel_signal(SIGTRAP);
    case kInvalidOpcode: return fault_signal(SIGILL, ILL_ILLOPN, frame.rip);
    case kSegmentNotPresent:
    case kStackFault: return kernel_signal(SIGBUS);
    case kX87: return fault_signal(SIGFPE, x87_code(), frame.rip);
    case kSimd: return fault_signal(SIGFPE, simd_code(), frame.rip);
    case kAlignment: return fault_signal(SIGBUS, BUS_ADRALN, 0);
    default: return kernel_signal(SIGSEGV);  // overflow, bound, general protection
  }
}

SignalInfo signal_of_page_fault(u64 address, int error) {
  switch (error) {
    case EACCES:
    case EPERM: return fault_signal(SIGSEGV, SEGV_ACCERR, address);
    case ENXIO:
    case EIO: return fault_signal(SIGBUS, BUS_ADRERR, address);
    default: return fault_signal(SIGSEGV, SEGV_MAPERR, address);
  }
}

void remember_trap(Task& task, const TrapFrame& frame) {
  task.trap_vector = frame.vector;
  task.trap_error = frame.error;
  if (frame.vector == kPageFault) task.trap_address = frame.address;  // CR2 keeps the last one
}

[[noreturn]] void out_of_memory() {
  mem::MemoryStatistics memory = mem::memory_statistics();
  log(LogLevel::error, "out of memory: all of the %llu MiB are in use; give the machine more with -m",
      static_cast<unsigned long long>(memory.total / kMiB));
  exit_process(SIGKILL);
}

// A copy to or from the program may be in the middle of a queue to which it holds pointers: nobody else may run before the fault is served.
Result<void> serve_page_fault(const TrapFrame& frame, mem::Access access, u64 stack_pointer) {
  if (frame.address >= kUserEnd) return Error(EFAULT);
  sched::MustStay stays;
  return current_space().fault(frame.address, access, stack_pointer);
}

// Calls through the fixed page of old Linux, at which nothing is mapped: gettimeofday, time, getcpu.
bool emulate_vsyscall(TrapFrame& frame) {
  if (frame.rip < kVsyscallStart || frame.rip >= kVsyscallEnd) return false;
  i64 result;
  switch (frame.rip - kVsyscallStart) {
    case 0x000: result = sys_gettimeofday(frame.rdi, frame.rsi, 0, 0, 0, 0); break;
    case 0x400: result = sys_time(frame.rdi, 0, 0, 0, 0, 0); break;
    case 0x800: result = sys_getcpu(frame.rdi, frame.rsi, 0, 0, 0, 0); break;
    default: return false;
  }
  auto return_address = mem::read_user(mem::UserPtr<u64>(frame.rsp));
  if (!return_address.ok()) return false;
  frame.rax = static_cast<u64>(result);
  frame.rip = return_address.value();
  frame.rsp += sizeof(u64);
  return true;
}

}  // namespace

bool handle_page_fault(TrapFrame& frame, mem::Access access, bool from_program) {
  if (sched::current()->owner == nullptr || !current_process().space) return false;
  Task& task = current_task();
  if (from_program && access == mem::Access::execute && emulate_vsyscall(frame)) return true;
  auto result = serve_page_fault(frame, access, task.thread->frame()->rsp);
  ++task.minor_faults;
  if (result.ok()) return true;
  if (result.error().code() == ENOMEM) out_of_memory();
  if (!from_program) return false;
  remember_trap(task, frame);
  force_signal(signal_of_page_fault(frame.address, result.error().code()));
  return false;
}

void handle_exception(TrapFrame& frame) {
  Task& task = current_task();
  if (frame.vector == kProtection && emulate_vsyscall(frame)) return;
  remember_trap(task, frame);
  force_signal(signal_of(frame));
}

}  // namespace husk::linux
