// The way into the kernel and back. See nub_abi.h (upcalls, work bytes), cpu.h (frame, words at %gs), traps.h.
//
// System calls arrive at kernel_syscall_entry by `jmp *%gs:0` with rcx = return address, or, if they trapped, at
// kernel_trapped_syscall_entry as the instruction left things. The program's stack is not touched. A fast return
// loads rdi rsi rdx r10 r8 r9 rcx r11 and the flags; the rest is what C++ keeps for its caller (System V ABI, AMD64).
//
// SAFETY, interrupts. `interrupts_enabled` (VIF) is 1 only outside the kernel, at the first instruction of the entries and in
// the return path. An upcall that finds itself
//   * at the first instruction of an entry: remembers the event and lets the system call go on;
//   * in the return path, [kernel_exit_begin, kernel_exit_end): drops what was loaded so far and goes through
//     kernel_exit_slow: the frame is whole and rsp points at it until the last instruction but one;
//   * at kernel_exit_jump: all registers are the program's but rip, which is in rcx.
#include "abi/nub_abi.h"
#include "kernel/cpu.h"

#define ENOSYS_RESULT -38
#define SYSCALL_SLOTS 512
// Flags that the kernel must not run with and the fast return does not restore: TF, DF, NT, AC.
#define ODD_FLAGS 0x44500
#define TRAP_FLAG 0x100
#define DEBUG_VECTOR 1
#define EXCEPTION_VECTORS_END 0x20

        .text

// All registers but rax, rcx, rsp, rip, flags to the frame at `base`.
.macro STORE_OTHERS base
        mov %rbx, HUSK_FRAME_RBX(\base)
        mov %rdx, HUSK_FRAME_RDX(\base)
        mov %rsi, HUSK_FRAME_RSI(\base)
        mov %rdi, HUSK_FRAME_RDI(\base)
        mov %rbp, HUSK_FRAME_RBP(\base)
        mov %r8, HUSK_FRAME_R8(\base)
        mov %r9, HUSK_FRAME_R9(\base)
        mov %r10, HUSK_FRAME_R10(\base)
        mov %r11, HUSK_FRAME_R11(\base)
        mov %r12, HUSK_FRAME_R12(\base)
        mov %r13, HUSK_FRAME_R13(\base)
        mov %r14, HUSK_FRAME_R14(\base)
        mov %r15, HUSK_FRAME_R15(\base)
.endm

// Everything from the frame at rsp.
.macro LOAD_ALL_AND_IRETQ
        mov HUSK_FRAME_RAX(%rsp), %rax
        mov HUSK_FRAME_RBX(%rsp), %rbx
        mov HUSK_FRAME_RCX(%rsp), %rcx
        mov HUSK_FRAME_RDX(%rsp), %rdx
        mov HUSK_FRAME_RSI(%rsp), %rsi
        mov HUSK_FRAME_RDI(%rsp), %rdi
        mov HUSK_FRAME_RBP(%rsp), %rbp
        mov HUSK_FRAME_R8(%rsp), %r8
        mov HUSK_FRAME_R9(%rsp), %r9
        mov HUSK_FRAME_R10(%rsp), %r10
        mov HUSK_FRAME_R11(%rsp), %r11
        mov HUSK_FRAME_R12(%rsp), %r12
        mov HUSK_FRAME_R13(%rsp), %r13
        mov HUSK_FRAME_R14(%rsp), %r14
        mov HUSK_FRAME_R15(%rsp), %r15
        iretq
.endm

.macro RESET_FLAGS
        push $2
        popfq
.endm

// rsp = frame, in which rip, rsp and flags are; r11 = the program's flags, rcx = its rip.
.macro SERVE_SYSCALL
        mov %rcx, HUSK_FRAME_RIP(%rsp)
        mov %rcx, HUSK_FRAME_RCX(%rsp)
        mov %rax, HUSK_FRAME_ORIG_RAX(%rsp)
        STORE_OTHERS %rsp
        movq $-1, HUSK_FRAME_VECTOR(%rsp)
        test $ODD_FLAGS, %r11d
        jnz 8f
7:      mov %eax, %eax
        cmp $SYSCALL_SLOTS, %eax
        jae 9f
        mov %gs:HUSK_CPU_DISPATCH, %r11
        mov %r10, %rcx
        call *(%r11, %rax, 8)
        jmp kernel_exit_fast
8:      RESET_FLAGS
        orb $HUSK_WORK_FULL_RETURN, %gs:HUSK_VCPU_KERNEL_WORK
        jmp 7b
9:      mov $ENOSYS_RESULT, %rax
        jmp kernel_exit_fast
.endm

        .balign 64
        .globl kernel_syscall_entry
        .type kernel_syscall_entry, @function
kernel_syscall_entry:
        movq $0, %gs:HUSK_VCPU_INTERRUPTS_ENABLED
        mov %rsp, %r11
        mov %gs:HUSK_CPU_KERNEL_STACK, %rsp
        lea -(HUSK_FRAME_SIZE - HUSK_FRAME_RSP)(%rsp), %rsp
        mov %r11, (%rsp)
        pushfq                          // lands in the frame's rflags
        mov (%rsp), %r11
        lea -HUSK_FRAME_RFLAGS(%rsp), %rsp
        incq %gs:HUSK_VCPU_CALLED
        SERVE_SYSCALL
        .size kernel_syscall_entry, . - kernel_syscall_entry

        .balign 64
        .globl kernel_trapped_syscall_entry
        .type kernel_trapped_syscall_entry, @function
kernel_trapped_syscall_entry:
        movq $0, %gs:HUSK_VCPU_INTERRUPTS_ENABLED
        mov %rsp, %gs:HUSK_CPU_USER_RSP
        mov %gs:HUSK_CPU_KERNEL_STACK, %rsp
        lea -HUSK_FRAME_SIZE(%rsp), %rsp
        mov %r11, HUSK_FRAME_RFLAGS(%rsp)
        STORE_OTHERS %rsp               // frees a register; SERVE_SYSCALL does it again
        mov %gs:HUSK_CPU_USER_RSP, %rbx
        mov %rbx, HUSK_FRAME_RSP(%rsp)
        mov HUSK_FRAME_RBX(%rsp), %rbx
        incq %gs:HUSK_CPU_TRAPPED
        SERVE_SYSCALL
        .size kernel_trapped_syscall_entry, . - kernel_trapped_syscall_entry

// CPUID of the program, rewritten: rdx = return address, eax and ecx as for the instruction; rbx is free.
        .balign 64
        .globl kernel_cpuid_entry
        .type kernel_cpuid_entry, @function
kernel_cpuid_entry:
        movq $0, %gs:HUSK_VCPU_INTERRUPTS_ENABLED
        mov %rsp, %rbx
        mov %gs:HUSK_CPU_KERNEL_STACK, %rsp
        lea -(HUSK_FRAME_SIZE - HUSK_FRAME_RSP)(%rsp), %rsp
        mov %rbx, (%rsp)
        pushfq                          // lands in the frame's rflags
        lea -HUSK_FRAME_RFLAGS(%rsp), %rsp
        mov %rdx, HUSK_FRAME_RIP(%rsp)
        mov %rax, HUSK_FRAME_RAX(%rsp)
        mov %rcx, HUSK_FRAME_RCX(%rsp)
        STORE_OTHERS %rsp
        movq $-1, HUSK_FRAME_ORIG_RAX(%rsp)
        movq $-1, HUSK_FRAME_VECTOR(%rsp)
        RESET_FLAGS
        mov %rsp, %rdi
        call husk_cpuid_from_program
        jmp kernel_exit_full
        .size kernel_cpuid_entry, . - kernel_cpuid_entry

// --- the return path ----------------------------------------------------------------------------------------
        .balign 64
        .globl kernel_exit_begin, kernel_exit_end
        .type kernel_exit_begin, @function
kernel_exit_begin:
kernel_exit_fast:                       // rsp = frame, rax = result
        mov %rax, HUSK_FRAME_RAX(%rsp)
        movq $1, %gs:HUSK_VCPU_INTERRUPTS_ENABLED
        cmpq $0, %gs:HUSK_VCPU_WORK
        jne kernel_exit_work
        mov %rax, %rcx
        mov HUSK_FRAME_R11(%rsp), %r11
        mov %r11d, %edx                 // SF ZF AF PF CF by SAHF, OF by an addition that overflows
        mov %r11d, %eax
        shr $11, %eax
        and $1, %eax
        mov %dl, %ah
        add $0x7f, %al
        sahf
        mov %rcx, %rax
        mov HUSK_FRAME_RDI(%rsp), %rdi
        mov HUSK_FRAME_RSI(%rsp), %rsi
        mov HUSK_FRAME_RDX(%rsp), %rdx
        mov HUSK_FRAME_R10(%rsp), %r10
        mov HUSK_FRAME_R8(%rsp), %r8
        mov HUSK_FRAME_R9(%rsp), %r9
        mov HUSK_FRAME_RIP(%rsp), %rcx
        mov HUSK_FRAME_RSP(%rsp), %rsp
kernel_exit_jump:
        jmp *%rcx
kernel_exit_work:
        movq $0, %gs:HUSK_VCPU_INTERRUPTS_ENABLED
        jmp kernel_exit_slow
kernel_exit_full:                       // rsp = frame
        movq $1, %gs:HUSK_VCPU_INTERRUPTS_ENABLED
        cmpq $0, %gs:HUSK_VCPU_WORK
        jne kernel_exit_work
        LOAD_ALL_AND_IRETQ
kernel_exit_end:
kernel_exit_slow:                       // rsp = frame, interrupts off
        mov %rsp, %rdi
        call husk_return_work
        jmp kernel_exit_full
        .size kernel_exit_begin, . - kernel_exit_begin

// void husk_enter_program(TrapFrame* frame): drops the kernel stack.
        .globl husk_enter_program
        .type husk_enter_program, @function
husk_enter_program:
        mov %rdi, %rsp
        xor %ebp, %ebp
        jmp kernel_exit_slow
        .size husk_enter_program, . - husk_enter_program

// --- upcalls ------------------------------------------------------------------------------------------------
// Copies what the nub wrote, and rax and rcx from the upcall stack, to the frame at rcx; makes it the stack; ends the upcall.
.macro TAKE_UPCALL
        STORE_OTHERS %rcx
        pop %rax
        mov %rax, HUSK_FRAME_RCX(%rcx)
        pop %rax
        mov %rax, HUSK_FRAME_RAX(%rcx)
        mov %gs:HUSK_VCPU_UPCALL_RIP, %rax
        mov %rax, HUSK_FRAME_RIP(%rcx)
        mov %gs:HUSK_VCPU_UPCALL_CS, %rax
        mov %rax, HUSK_FRAME_CS(%rcx)
        mov %gs:HUSK_VCPU_UPCALL_RFLAGS, %rax
        mov %rax, HUSK_FRAME_RFLAGS(%rcx)
        mov %gs:HUSK_VCPU_UPCALL_RSP, %rax
        mov %rax, HUSK_FRAME_RSP(%rcx)
        mov %gs:HUSK_VCPU_UPCALL_SS, %rax
        mov %rax, HUSK_FRAME_SS(%rcx)
        mov %rcx, %rsp
        call upcall_describe
        movq $-1, HUSK_FRAME_ORIG_RAX(%rsp)
        RESET_FLAGS
.endm

// Vector, error code and address to the frame above the return address; the upcall page is free from then on.
upcall_describe:
        mov %gs:HUSK_VCPU_UPCALL_VECTOR, %rax
        mov %rax, (HUSK_FRAME_VECTOR + 8)(%rsp)
        mov %gs:HUSK_VCPU_UPCALL_ERROR, %rax
        mov %rax, (HUSK_FRAME_ERROR + 8)(%rsp)
        mov %gs:HUSK_VCPU_UPCALL_ADDRESS, %rax
        mov %rax, (HUSK_FRAME_ADDRESS + 8)(%rsp)
        movq $0, %gs:HUSK_VCPU_UPCALL_BUSY
        ret

        .balign 64
        .globl kernel_upcall_entry
        .type kernel_upcall_entry, @function
kernel_upcall_entry:
        push %rax
        push %rcx
        mov %gs:HUSK_VCPU_UPCALL_RIP, %rax
        lea kernel_text_start(%rip), %rcx
        cmp %rcx, %rax
        jb 2f
        lea kernel_text_end(%rip), %rcx
        cmp %rcx, %rax
        jb 1f
2:      mov %gs:HUSK_CPU_KERNEL_STACK, %rcx
        lea -HUSK_FRAME_SIZE(%rcx), %rcx
        TAKE_UPCALL
        jmp from_program
1:      lea kernel_exit_jump(%rip), %rcx
        cmp %rcx, %rax
        je at_exit_jump
        lea kernel_exit_begin(%rip), %rcx
        sub %rcx, %rax
        cmp $(kernel_exit_end - kernel_exit_begin), %rax
        jb in_exit
        add %rcx, %rax
        cmpq $EXCEPTION_VECTORS_END, %gs:HUSK_VCPU_UPCALL_VECTOR
        jae at_entry
        cmpq $DEBUG_VECTOR, %gs:HUSK_VCPU_UPCALL_VECTOR
        je resume
        mov %gs:HUSK_VCPU_UPCALL_RSP, %rcx
        lea -HUSK_FRAME_SIZE(%rcx), %rcx
        and $-16, %rcx
        cmp %gs:HUSK_CPU_STACK_LIMIT, %rcx
        jb stack_overflow
        TAKE_UPCALL
        mov %rsp, %rdi
        call husk_upcall_from_kernel
        LOAD_ALL_AND_IRETQ

at_exit_jump:
        mov %gs:HUSK_CPU_KERNEL_STACK, %rcx
        lea -HUSK_FRAME_SIZE(%rcx), %rcx
        TAKE_UPCALL
        mov HUSK_FRAME_RCX(%rsp), %rax
        mov %rax, HUSK_FRAME_RIP(%rsp)
from_program:
        mov %rsp, %rdi
        call husk_upcall_from_program
        jmp kernel_exit_slow

// An event: remembered. An exception: IRETQ did not like the frame that the program made (a signal frame): the program's fault.
in_exit:
        mov %gs:HUSK_VCPU_UPCALL_RSP, %rsp
        RESET_FLAGS
        cmpq $EXCEPTION_VECTORS_END, %gs:HUSK_VCPU_UPCALL_VECTOR
        jb 1f
        movb $1, %gs:HUSK_VCPU_WORK
        movq $0, %gs:HUSK_VCPU_UPCALL_BUSY
        jmp kernel_exit_slow
1:      call upcall_describe
        movq $-1, HUSK_FRAME_ORIG_RAX(%rsp)
        jmp from_program

// An event while the kernel runs, which can only be at the first instruction of an entry.
at_entry:
        movb $1, %gs:HUSK_VCPU_WORK
// Goes on as if nothing had happened; without the program's trap flag, which came in with a call.
resume:
        andq $~TRAP_FLAG, %gs:HUSK_VCPU_UPCALL_RFLAGS
        push %gs:HUSK_VCPU_UPCALL_RFLAGS
        popfq
        pop %rcx
        pop %rax
        mov %gs:HUSK_VCPU_UPCALL_RSP, %rsp
        movq $0, %gs:HUSK_VCPU_UPCALL_BUSY
        jmp *%gs:HUSK_VCPU_UPCALL_RIP

// On the upcall stack, which nothing needs any more.
stack_overflow:
        mov %gs:HUSK_VCPU_UPCALL_RIP, %rdi
        mov %gs:HUSK_VCPU_UPCALL_ADDRESS, %rsi
        mov %rbp, %rdx
        and $-16, %rsp
        movq $0, %gs:HUSK_VCPU_UPCALL_BUSY
        call husk_kernel_stack_overflow
        ud2
        .size kernel_upcall_entry, . - kernel_upcall_entry
        .section .note.GNU-stack, "", @progbits
