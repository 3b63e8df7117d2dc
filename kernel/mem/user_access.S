// The only instructions of the kernel that touch program memory. A page fault on one of them is first served like the
// program's own; if that is not possible, execution goes on at the fixup behind it (user_copy_fixup() knows the pairs).
// REP MOVSB and STOSB keep rcx as the number of bytes left when they fault, and ERMS/FSRM make them fast without vectors.

.macro function name
  .globl \name
  .hidden \name
  .type \name, @function
\name:
.endm
// Marks the next instruction: what follows the label pair \name, \name_fixup is found by user_copy.cc.
.macro access name
  .globl \name
  .hidden \name
\name:
.endm

.section .text.husk_user_access, "ax", @progbits
.p2align 4
function husk_user_copy
  mov %rdx, %rcx
access husk_user_copy_access
  rep movsb
access husk_user_copy_fixup
  mov %rcx, %rax
  ret

.p2align 4
function husk_user_clear
  mov %rsi, %rcx
  xor %eax, %eax
access husk_user_clear_access
  rep stosb
access husk_user_clear_fixup
  mov %rcx, %rax
  ret

.p2align 4
function husk_user_load_u32
access husk_user_load_access
  mov (%rdi), %eax
  xor %edx, %edx
  ret
access husk_user_load_fixup
  mov $1, %edx
  ret

.p2align 4
function husk_user_compare_exchange_u32
  mov %edx, %ecx
  mov %esi, %eax
  xor %edx, %edx
access husk_user_exchange_access
  lock cmpxchg %ecx, (%rdi)
  ret
access husk_user_exchange_fixup
  mov $1, %edx
  ret

.section .note.GNU-stack, "", @progbits
