// What belongs to one vCPU, and the frame in which a trap or system call leaves the program's registers.
//
// %gs points at the vCPU's VcpuShared page (abi/nub_abi.h); its scratch words hold what entry.S needs. Offsets for
// assembly are at the top and checked at the bottom. Only the vCPU itself touches its Cpu.
#pragma once

// Words of VcpuShared::scratch, as byte offsets from %gs:0.
#define HUSK_CPU_USER_RSP 0x80      // entry code parks the program's rsp here for two instructions
#define HUSK_CPU_KERNEL_STACK 0x88  // top of the current thread's kernel stack = end of its TrapFrame
#define HUSK_CPU_SELF 0x90          // Cpu*
#define HUSK_CPU_TRAPPED 0xa0       // system calls that came by a trap
#define HUSK_CPU_DISPATCH 0xa8      // table of system-call functions (tracing replaces it)
#define HUSK_CPU_STACK_LIMIT 0xb0   // a trap in the kernel below this address of the stack is an overflow

// Work::kWorkFullReturn for entry code, which finds kernel_work[0] here.
#define HUSK_WORK_FULL_RETURN 8
#define HUSK_VCPU_KERNEL_WORK (HUSK_VCPU_WORK + 1)

// TrapFrame: what IRETQ takes first, so that a return restores every other register without moving rsp.
#define HUSK_FRAME_RIP 0x00
#define HUSK_FRAME_CS 0x08
#define HUSK_FRAME_RFLAGS 0x10
#define HUSK_FRAME_RSP 0x18
#define HUSK_FRAME_SS 0x20
#define HUSK_FRAME_RAX 0x28
#define HUSK_FRAME_RBX 0x30
#define HUSK_FRAME_RCX 0x38
#define HUSK_FRAME_RDX 0x40
#define HUSK_FRAME_RSI 0x48
#define HUSK_FRAME_RDI 0x50
#define HUSK_FRAME_RBP 0x58
#define HUSK_FRAME_R8 0x60
#define HUSK_FRAME_R9 0x68
#define HUSK_FRAME_R10 0x70
#define HUSK_FRAME_R11 0x78
#define HUSK_FRAME_R12 0x80
#define HUSK_FRAME_R13 0x88
#define HUSK_FRAME_R14 0x90
#define HUSK_FRAME_R15 0x98
#define HUSK_FRAME_ORIG_RAX 0xa0  // system-call number, or -1
#define HUSK_FRAME_VECTOR 0xa8    // exception or interrupt vector; -1 for a system call
#define HUSK_FRAME_ERROR 0xb0
#define HUSK_FRAME_ADDRESS 0xb8  // CR2
#define HUSK_FRAME_SIZE 0xc0

#ifndef __ASSEMBLER__

#include "abi/nub_abi.h"
#include "base/types.h"

namespace husk {

struct TrapFrame {
  u64 rip, cs, rflags, rsp, ss;
  u64 rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15;
  u64 orig_rax, vector, error, address;
};
static_assert(sizeof(TrapFrame) == HUSK_FRAME_SIZE);
static_assert(__builtin_offsetof(TrapFrame, rax) == HUSK_FRAME_RAX);
static_assert(__builtin_offsetof(TrapFrame, r15) == HUSK_FRAME_R15);
static_assert(__builtin_offsetof(TrapFrame, address) == HUSK_FRAME_ADDRESS);

namespace sched {
class Thread;
}

constexpr u32 kCpusMax = 64;

struct Cpu {
  u32 index = 0;
  sched::Thread* current = nullptr;
  sched::Thread* idle = nullptr;
  abi::VcpuShared* shared = nullptr;
};

#if defined(HUSK_GUEST)
inline Cpu& this_cpu() {
  Cpu* cpu;
  asm("mov %%gs:%c1, %0" : "=r"(cpu) : "i"(HUSK_CPU_SELF));
  return *cpu;
}
#else
Cpu& this_cpu();  // platform/fake
#endif

// Bits of VcpuShared::kernel_work[0]: reasons for the exit path to go the slow way.
// The second and fourth belong to the current thread and are kept with it.
enum Work : u8 { kWorkReschedule = 1, kWorkSignal = 2, kWorkPlatform = 4, kWorkFullReturn = HUSK_WORK_FULL_RETURN };
inline void raise_work(Work work) { this_cpu().shared->kernel_work[0] |= work; }

}  // namespace husk
#endif  // __ASSEMBLER__
