// The nub interface: what the ring-0 trap layer and the ring-3 kernel agree on.
//
// Included by C++ of nub/, kernel/ and abi/machine_state.h, and by assembly (the macros).
// Design: traps become upcalls; the kernel asks for privileged work by batched nub calls.
//
// Upcall: what happened is in the vCPU's shared page (VcpuShared::upcall_*; the CPU itself pushes an exception's frame there). The nub sets
// `upcall_busy`, clears `interrupts_enabled`, and continues at the kernel's upcall entry in ring 3 with
// rsp = BootInfo::upcall_stack_top and every other general register as the interrupted code left it. The kernel copies the
// frame out and clears `upcall_busy`. An exception while `upcall_busy` is set ends the machine.
// An interrupt is delivered as an upcall only while `interrupts_enabled` is 1 and `upcall_busy` is 0;
// otherwise the nub only sets `interrupt_pending`.
//
// System call that traps: the nub continues at the kernel's trapped-syscall entry with all registers as the
// `syscall` instruction left them (rcx = return address, r11 = flags, rsp = program's). The page's frame (vector to ss) may be overwritten.
//
// Nub call: a `syscall` instruction whose return address (rcx) is the one registered call site of the kernel.
// rdi = number of operations in VcpuShared::calls; result in rax: 0, or -(errno) with the index of the
// operation that failed in VcpuShared::calls_done. rcx and r11 are clobbered.
// rdi = HUSK_NUB_APPLY writes what the monitor prepared (monitor_device.h, kMonitorTables), if nothing came between; it clobbers what a C call may.
#pragma once

// Offsets in VcpuShared for assembly; checked below.
#define HUSK_VCPU_SYSCALL_ENTRY 0x00  // trampolines jump through %gs:0x00
#define HUSK_VCPU_INTERRUPTS_ENABLED 0x08
#define HUSK_VCPU_WORK 0x10
#define HUSK_VCPU_UPCALL_BUSY 0x18
#define HUSK_VCPU_UPCALL_ADDRESS 0x20
#define HUSK_VCPU_NUB_TRAPS 0x28
#define HUSK_VCPU_UPCALL_VECTOR 0x38
#define HUSK_VCPU_UPCALL_ERROR 0x40
#define HUSK_VCPU_UPCALL_RIP 0x48
#define HUSK_VCPU_UPCALL_CS 0x50
#define HUSK_VCPU_UPCALL_RFLAGS 0x58
#define HUSK_VCPU_UPCALL_RSP 0x60
#define HUSK_VCPU_UPCALL_SS 0x68
#define HUSK_VCPU_NUB_SYSCALLS 0x70
#define HUSK_VCPU_UPCALL_FRAME_END 0x70  // a multiple of 16: the CPU pushes from here (Intel SDM 3A §6.14.2)
#define HUSK_VCPU_CPUID_ENTRY 0x78       // as SYSCALL_ENTRY, for CPUID
#define HUSK_VCPU_SCRATCH 0x80           // 0x80..0x100: free for the kernel's entry code
#define HUSK_VCPU_CALLED 0x110           // for rewritten programs, see kAnsweredCalls
#define HUSK_VCPU_ANSWERS 0x118
#define HUSK_VCPU_CALLS 0x400
#define HUSK_VCPU_CALLS_MAX 76
#define HUSK_NUB_APPLY 0x7fffffff

// Segment selectors, the same on every loader. SYSCALL/IRETQ need this order (Intel SDM 3A §5.8.8).
#define HUSK_NUB_CS 0x08
#define HUSK_NUB_SS 0x10
#define HUSK_USER_SS 0x2b  // the values that Linux programs see in signal frames
#define HUSK_USER_CS 0x33
#define HUSK_TSS 0x38

// Interrupt vector that the monitor injects; device and timer vectors of a local APIC start here too.
#define HUSK_VECTOR_EVENT 0x20
#define HUSK_VECTOR_TIMER 0x21
#define HUSK_VECTOR_IPI 0x22
#define HUSK_VECTOR_SPURIOUS 0x2f
#define HUSK_VECTOR_COUNT 0x30

#ifndef __ASSEMBLER__

#include "base/types.h"

namespace husk::abi {

constexpr u32 kNubAbiVersion = 1;

enum class NubOp : u16 {
  none = 0,
  map = 1,            // space, va, pa, length, flags: (re)maps; 2 MiB pages where all are aligned
  unmap = 2,          // space, va, length; holes are fine
  protect = 3,        // space, va, length, flags: changes what is mapped, leaves holes
  space_create = 4,   // result in `pa`: id of a new address space that shares the kernel's half
  space_switch = 5,   // space
  space_destroy = 6,  // space (not the current one)
  seal = 7,           // va, length: in the kernel's half; read-only and unchangeable from now on
  copy = 8,           // va, pa: physical addresses, length: from pa to va; only for the monitor (kMonitorTables), the nub knows none
  halt = 9,           // until an interrupt; returns at once if interrupt_pending
  arm_timer = 10,     // pa = deadline in TSC ticks, 0 = off (local APIC; ENODEV under the husk monitor)
  end_of_interrupt = 11,
  send_ipi = 12,     // space = vCPU index
  start_vcpu = 13,   // ENOSYS until the kernel runs on several vCPUs
  read_msr = 14,     // va = number (whitelist), result in `pa`
  write_msr = 15,    // va = number (whitelist), pa = value
  power_off = 16,    // pa = exit status
  debug_write = 17,  // va = pointer is NOT taken: up to 24 bytes inline in va, pa, length; early messages
};

enum NubFlags : u32 {
  kNubRead = 1,
  kNubWrite = 2,
  kNubExecute = 4,
  kNubUncached = 8,
  kNubJit = 16,  // mapping may become executable after it was writable; refused unless the image declares a JIT
};

struct NubCall {
  NubOp op;
  u16 reserved;
  u32 flags;
  u64 va;
  u64 pa;
  u64 length;  // bytes
  u32 space;
  u32 reserved2;
};
static_assert(sizeof(NubCall) == 40);

constexpr u64 kNubCallsMax = HUSK_VCPU_CALLS_MAX;

// System calls without arguments whose result rarely changes: getpid, getppid, getuid, geteuid, getgid, getegid. Trampolines answer them from
// VcpuShared::answers, which holds each one's result plus 1, or 0: then the kernel is asked.
constexpr u16 kAnsweredCalls[] = {39, 110, 102, 107, 104, 108};
constexpr u64 kAnsweredCallCount = sizeof(kAnsweredCalls) / sizeof(kAnsweredCalls[0]);

// One page per vCPU, writable by ring 3 at gs base; the nub reaches it by an alias of its own and trusts nothing in it.
struct VcpuShared {
  u64 syscall_entry;       // kernel's entry for rewritten system calls
  u64 interrupts_enabled;  // virtual interrupt flag: 1 while program code runs
  // Any non-zero byte sends the kernel's exit path the slow way.
  u8 interrupt_pending;  // set by the nub
  u8 kernel_work[7];     // set by the kernel: reschedule, signal
  u64 upcall_busy;
  u64 upcall_address;  // CR2 for page faults
  u64 nub_traps;       // exceptions + interrupts that became upcalls, counted by the nub
  u64 nub_scratch;     // below the frame
  u64 upcall_vector;
  u64 upcall_error;
  u64 upcall_rip;
  u64 upcall_cs;
  u64 upcall_rflags;
  u64 upcall_rsp;
  u64 upcall_ss;
  u64 nub_syscalls;  // system calls that trapped, counted by the nub
  u64 cpuid_entry;   // kernel's entry for rewritten CPUID instructions
  u64 scratch[16];
  u64 calls_done;
  u64 calls_prepared;  // set by the monitor: HUSK_NUB_APPLY completes what it did
  u64 called;          // system calls that came by a call; trampolines count the ones that they answer
  u64 answers[kAnsweredCallCount];
  u8 reserved2[HUSK_VCPU_CALLS - HUSK_VCPU_ANSWERS - 8 * kAnsweredCallCount];
  NubCall calls[HUSK_VCPU_CALLS_MAX];
};
static_assert(sizeof(VcpuShared) <= kPageSize);
static_assert(__builtin_offsetof(VcpuShared, syscall_entry) == HUSK_VCPU_SYSCALL_ENTRY);
static_assert(__builtin_offsetof(VcpuShared, interrupts_enabled) == HUSK_VCPU_INTERRUPTS_ENABLED);
static_assert(__builtin_offsetof(VcpuShared, interrupt_pending) == HUSK_VCPU_WORK);
static_assert(__builtin_offsetof(VcpuShared, upcall_busy) == HUSK_VCPU_UPCALL_BUSY);
static_assert(__builtin_offsetof(VcpuShared, nub_syscalls) == HUSK_VCPU_UPCALL_FRAME_END);
static_assert(__builtin_offsetof(VcpuShared, upcall_vector) == HUSK_VCPU_UPCALL_VECTOR);
static_assert(__builtin_offsetof(VcpuShared, upcall_error) == HUSK_VCPU_UPCALL_ERROR);
static_assert(__builtin_offsetof(VcpuShared, upcall_address) == HUSK_VCPU_UPCALL_ADDRESS);
static_assert(__builtin_offsetof(VcpuShared, upcall_rip) == HUSK_VCPU_UPCALL_RIP);
static_assert(__builtin_offsetof(VcpuShared, upcall_cs) == HUSK_VCPU_UPCALL_CS);
static_assert(__builtin_offsetof(VcpuShared, upcall_rflags) == HUSK_VCPU_UPCALL_RFLAGS);
static_assert(__builtin_offsetof(VcpuShared, upcall_rsp) == HUSK_VCPU_UPCALL_RSP);
static_assert(__builtin_offsetof(VcpuShared, upcall_ss) == HUSK_VCPU_UPCALL_SS);
static_assert(__builtin_offsetof(VcpuShared, nub_traps) == HUSK_VCPU_NUB_TRAPS);
static_assert(__builtin_offsetof(VcpuShared, nub_syscalls) == HUSK_VCPU_NUB_SYSCALLS);
static_assert(__builtin_offsetof(VcpuShared, cpuid_entry) == HUSK_VCPU_CPUID_ENTRY);
static_assert(__builtin_offsetof(VcpuShared, scratch) == HUSK_VCPU_SCRATCH);
static_assert(__builtin_offsetof(VcpuShared, called) == HUSK_VCPU_CALLED);
static_assert(__builtin_offsetof(VcpuShared, answers) == HUSK_VCPU_ANSWERS);
static_assert(__builtin_offsetof(VcpuShared, calls) == HUSK_VCPU_CALLS);

}  // namespace husk::abi
#endif  // __ASSEMBLER__
