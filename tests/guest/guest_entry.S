// Entry points of the micro-guest: the same symbols as the real kernel's, as small as they can be.
#include "abi/nub_abi.h"
  .text
  .globl kernel_start, kernel_upcall_entry, kernel_trapped_syscall_entry, kernel_nub_call_site, guest_nub_call
kernel_start:
  call guest_main
  ud2

guest_nub_call:
  syscall
kernel_nub_call_site:
  ret

  // All registers are the interrupted code's. guest_upcall may edit the frame in VcpuShared; the iretq is an ordinary ring-3 one.
kernel_upcall_entry:
  pushq %rax
  pushq %rcx
  pushq %rdx
  pushq %rsi
  pushq %rdi
  pushq %r8
  pushq %r9
  pushq %r10
  pushq %r11
  pushq %rbx
  movq %rsp, %rbx
  andq $-16, %rsp
  call guest_upcall
  movq %rbx, %rsp
  popq %rbx
  popq %r11
  popq %r10
  popq %r9
  popq %r8
  popq %rdi
  popq %rsi
  popq %rdx
  popq %rcx
  popq %rax
  pushq %gs:HUSK_VCPU_UPCALL_SS
  pushq %gs:HUSK_VCPU_UPCALL_RSP
  pushq %gs:HUSK_VCPU_UPCALL_RFLAGS
  pushq %gs:HUSK_VCPU_UPCALL_CS
  pushq %gs:HUSK_VCPU_UPCALL_RIP
  movq $0, %gs:HUSK_VCPU_UPCALL_BUSY
  iretq

  // Stores what the syscall instruction left and goes back behind it.
kernel_trapped_syscall_entry:
  movq %rcx, trapped_rcx(%rip)
  movq %r11, trapped_r11(%rip)
  movq %rsp, trapped_rsp(%rip)
  movq %rax, trapped_rax(%rip)
  movq $4711, %rax
  jmp *%rcx

  .globl guest_trap_syscall, trap_return
guest_trap_syscall:  // (u64 rax)
  movq %rdi, %rax
  syscall
trap_return:
  ret

  // u64 guest_read(const void*), guest_write(void*), guest_call(void*): 0, or 1 if it faulted. guest_upcall goes to `recover`.
  .globl guest_read, guest_write, guest_jump, recover, ud_site, guest_ud
guest_read:
  movq %rsp, recover_rsp(%rip)
  movb (%rdi), %al
  xorl %eax, %eax
  ret
guest_write:
  movq %rsp, recover_rsp(%rip)
  movb $1, (%rdi)
  xorl %eax, %eax
  ret
guest_jump:
  movq %rsp, recover_rsp(%rip)
  call *%rdi
  xorl %eax, %eax
  ret
recover:
  movq recover_rsp(%rip), %rsp
  movl $1, %eax
  ret
  // Every register with a known value across an exception; 0 if all came through.
guest_ud:
  pushq %rbx
  movq $0x1111, %rax
  movq $0x2222, %rbx
  movq $0x3333, %rcx
  movq $0x4444, %rdx
  movq $0x5555, %rsi
  movq $0x6666, %rdi
  movq $0x7777, %r8
  movq $0x8888, %r11
  movq %rsp, recover_rsp(%rip)
ud_site:
  ud2
  xorq $0x1111, %rax
  xorq $0x2222, %rbx
  orq %rbx, %rax
  xorq $0x3333, %rcx
  orq %rcx, %rax
  xorq $0x4444, %rdx
  orq %rdx, %rax
  xorq $0x5555, %rsi
  orq %rsi, %rax
  xorq $0x6666, %rdi
  orq %rdi, %rax
  xorq $0x7777, %r8
  orq %r8, %rax
  xorq $0x8888, %r11
  orq %r11, %rax
  movq %rsp, %rcx
  xorq recover_rsp(%rip), %rcx
  orq %rcx, %rax
  popq %rbx
  ret

privileged_cr3:
  movq %rax, %cr3
  ret
privileged_cr4:
  movq %cr4, %rax
  ret
privileged_wrmsr:
  wrmsr
  ret
privileged_rdmsr:
  rdmsr
  ret
privileged_lidt:
  lidt (%rsp)
  ret
privileged_hlt:
  hlt
  ret
privileged_cli:
  cli
  ret
privileged_out:
  outb %al, $0x80
  ret
privileged_sgdt:
  sgdt -64(%rsp)
  ret
privileged_invlpg:
  invlpg (%rsp)
  ret
privileged_swapgs:
  swapgs
  ret
  .section .data.rel.ro, "aw"
  .globl privileged_sites
privileged_sites:
  .quad privileged_cr3
  .quad privileged_cr4
  .quad privileged_wrmsr
  .quad privileged_rdmsr
  .quad privileged_lidt
  .quad privileged_hlt
  .quad privileged_cli
  .quad privileged_out
  .quad privileged_sgdt
  .quad privileged_invlpg
  .quad privileged_swapgs
  .quad 0

  .bss
  .balign 8
  .globl trapped_rcx, trapped_r11, trapped_rsp, trapped_rax, recover_rsp
trapped_rcx: .quad 0
trapped_r11: .quad 0
trapped_rsp: .quad 0
trapped_rax: .quad 0
recover_rsp: .quad 0
  .section .note.GNU-stack, "", @progbits
