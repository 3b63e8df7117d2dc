// The page of entry code: exceptions, interrupts and system calls enter ring 0 here and nowhere else.
//
// Every vCPU has its own alias of this page; the pages behind the alias (machine_state.h VcpuBlock) are its data, stacks and the
// supervisor alias of its VcpuShared, so everything is reached relative to rip and neither SWAPGS nor AC is needed.
// Runs with interrupts off. Every instruction may be emulated (0.2 to 0.5 µs): the paths are as short as they can be.
// Exceptions of ring 3 have their frame pushed where the kernel reads it, in VcpuShared (TSS.RSP0); interrupts have a stack of their own, because
// they may come while that frame is not read yet. Values in VcpuShared are the guest's: read once, never a stack or an address here.
#include "abi/nub_abi.h"

#define DATA(offset) (husk_stubs + 0x1000 + (offset))(%rip)
#define SHARED(offset) (husk_stubs + 0x4000 + (offset))(%rip)
#define APPLY_LIST (husk_stubs + 0x6000)(%rip)
#define STACK_TOP (husk_stubs + 0x3000)(%rip)
// NubVcpu
#define UPCALL_FRAME 0x00
#define SYSCALL_FRAME 0x28
#define CALL_SITE 0x50
#define LSTAR 0x58
#define SCRATCH 0x60
#define NMI_COUNT 0x68
#define CALL_FRAME 0x70
// At rsp after a vector stub: vector, error, rip, cs, rflags, rsp, ss
#define FRAME_CS 24

  .section .text.stubs, "ax"
  .balign 4096
  .globl husk_stubs, nub_vector_stubs, nub_syscall_stub
husk_stubs:
nub_vector_stubs:
  .set vector, 0
  .rept HUSK_VECTOR_COUNT
  .balign 16
  .if vector == 2
  jmp nmi
  .elseif vector == 14
  pushq $14
  jmp page_fault
  .elseif vector == 8 || vector == 18
  pushq $vector  // an error code of its own or a junk word below: fatal either way
  jmp fatal
  .elseif vector == 10 || vector == 11 || vector == 12 || vector == 13 || vector == 17 || vector == 21
  pushq $vector
  jmp exception
  .elseif vector < 32
  pushq $0
  pushq $vector
  jmp exception
  .else
  pushq $0
  pushq $vector
  jmp interrupt
  .endif
  .set vector, vector + 1
  .endr

  .balign 16
page_fault:
  cmpb $0x15, 8(%rsp)  // present, user, fetch: ring 3 jumped to a page it may not execute
  je fetch_fault
1:
  movq %rax, SHARED(HUSK_VCPU_UPCALL_ADDRESS)
  movq %cr2, %rax
  xchgq %rax, SHARED(HUSK_VCPU_UPCALL_ADDRESS)
exception:
  testb $3, FRAME_CS(%rsp)
  jz fatal
  cmpq $0, SHARED(HUSK_VCPU_UPCALL_BUSY)
  jne fatal
upcall:
  movq $1, SHARED(HUSK_VCPU_UPCALL_BUSY)
  movq $0, SHARED(HUSK_VCPU_INTERRUPTS_ENABLED)
  incq SHARED(HUSK_VCPU_NUB_TRAPS)
  leaq DATA(UPCALL_FRAME), %rsp
  iretq

  // Some software KVMs enter LSTAR at privilege level 3 on SYSCALL, which faults right there. What ring 3 can forge by jumping to
  // LSTAR it can do as well by jumping to a syscall instruction; so this is the same entry.
fetch_fault:
  pushq %rax
  movq DATA(LSTAR), %rax
  cmpq %rax, 24(%rsp)
  popq %rax
  jne 1b
  movq 40(%rsp), %rsp  // the program's; rcx and r11 are as SYSCALL left them
nub_syscall_stub:
  cmpq %rcx, DATA(CALL_SITE)
  je nub_call_entry
  movq %rsp, DATA(SYSCALL_FRAME + 24)
  movq %rcx, DATA(SCRATCH)
  incq SHARED(HUSK_VCPU_NUB_SYSCALLS)
  leaq DATA(SYSCALL_FRAME), %rsp
  iretq

nub_call_entry:
  cmpl $HUSK_NUB_APPLY, %edi
  je apply
  movq $0, APPLY_LIST  // holds only as long as nothing else changes the tables
  movq %rsp, DATA(SCRATCH)
  leaq STACK_TOP, %rsp
  pushq $HUSK_USER_SS
  pushq DATA(SCRATCH)
  pushq $0x202
  pushq $HUSK_USER_CS
  pushq %rcx
  pushq %rdx
  pushq %rsi
  pushq %rdi
  pushq %r8
  pushq %r9
  pushq %r10
  leaq SHARED(0), %rsi
  movq $nub_call, %rax
  call *%rax
  popq %r10
  popq %r9
  popq %r8
  popq %rdi
  popq %rsi
  popq %rdx
  iretq

  // ApplyList, which only the monitor and the nub can write: copied as it is, once. No stack.
apply:
  cld
  leaq APPLY_LIST, %rdx
  jmp 2f
1:
  movq 8(%rdx), %rdi
  movq 16(%rdx), %rsi
  movq 24(%rdx), %r8
  movq 32(%rdx), %rax
  rep movsq
  subw %ax, (%r8)
  addq $40, %rdx
2:
  movq (%rdx), %rcx
  testq %rcx, %rcx
  jnz 1b
  movq $0, APPLY_LIST
  movq %cr3, %rax
  movq %rax, %cr3
  xorl %eax, %eax
  movq %rsp, DATA(CALL_FRAME + 24)
  leaq DATA(CALL_FRAME), %rsp
  iretq

  // interrupt_pending, or an upcall if the program runs with interrupts on. From ring 0 (halt): pending.
interrupt:
  cmpq $0, SHARED(HUSK_VCPU_INTERRUPTS_ENABLED)
  je 2f
  cmpq $0, SHARED(HUSK_VCPU_UPCALL_BUSY)
  jne 2f
  testb $3, FRAME_CS(%rsp)
  jz 2f
  popq SHARED(HUSK_VCPU_UPCALL_VECTOR)
  popq SHARED(HUSK_VCPU_UPCALL_ERROR)
  popq SHARED(HUSK_VCPU_UPCALL_RIP)
  popq SHARED(HUSK_VCPU_UPCALL_CS)
  popq SHARED(HUSK_VCPU_UPCALL_RFLAGS)
  popq SHARED(HUSK_VCPU_UPCALL_RSP)
  popq SHARED(HUSK_VCPU_UPCALL_SS)
  jmp upcall
2:
  movb $1, SHARED(HUSK_VCPU_WORK)
  addq $16, %rsp
  iretq

nmi:
  incq DATA(NMI_COUNT)
  iretq

  // An exception in the nub, in an upcall that the kernel has not taken over yet, a double fault or a machine check: over.
fatal:
  popq %rdi  // vector
  movq (%rsp), %rsi  // error, or rip for a machine check
  movq 8(%rsp), %rdx
  movq 16(%rsp), %rcx
  movq 32(%rsp), %r8
  leaq STACK_TOP, %rsp
  movq $nub_fatal, %rax
  call *%rax
  .org husk_stubs + 4096  // fails if the entry code does not fit into one page
  .section .note.GNU-stack, "", @progbits
