// Programs of the self-test: one page of the image, mapped where programs live. They call the kernel as rewritten code does.
#include "kernel/boot/selftest.h"

.macro CALL number
        lea 99f(%rip), %rcx
        mov $\number, %eax
        jmp *%gs:0
        syscall                         // never reached but by what restarts a call: image/rewrite/README.md
99:
.endm

        .section .text.program, "ax", @progbits
        .balign 4096
        .globl program_start, program_contract, program_spin, program_set, program_time, program_vector, program_faults
program_start:

// rdi = Area: a call with known registers and flags, all of them looked at afterwards. The area's address is in the red zone.
program_contract:
        mov %rdi, -8(%rsp)
        mov -8(%rsp), %rax
        lea -512(%rsp), %rsp
        pushq AREA_FLAGS_IN(%rax)
        mov AREA_BY_TRAP(%rax), %rcx
        movabs $0x1111111111111111, %rbx
        movabs $0x2222222222222222, %rdx
        movabs $0x3333333333333333, %rsi
        movabs $0x4444444444444444, %rdi
        movabs $0x5555555555555555, %rbp
        movabs $0x8888888888888888, %r8
        movabs $0x9999999999999999, %r9
        movabs $0xaaaaaaaaaaaaaaaa, %r10
        movabs $0xcccccccccccccccc, %r12
        movabs $0xdddddddddddddddd, %r13
        movabs $0xeeeeeeeeeeeeeeee, %r14
        movabs $0xffffffffffffffff, %r15
        jrcxz 1f
        mov $CALL_HASH, %eax
        popfq
        lea 512(%rsp), %rsp
        syscall
        jmp 2f
1:      mov $CALL_HASH, %eax
        lea 2f(%rip), %rcx
        popfq
        lea 512(%rsp), %rsp
        jmp *%gs:0
        syscall
2:      mov %rax, -16(%rsp)
        mov -8(%rsp), %rax
        mov %rbx, AREA_AFTER + 0x08(%rax)
        mov %rcx, AREA_AFTER + 0x10(%rax)
        mov %rdx, AREA_AFTER + 0x18(%rax)
        mov %rsi, AREA_AFTER + 0x20(%rax)
        mov %rdi, AREA_AFTER + 0x28(%rax)
        mov %rbp, AREA_AFTER + 0x30(%rax)
        mov %rsp, AREA_AFTER + 0x38(%rax)
        mov %r8, AREA_AFTER + 0x40(%rax)
        mov %r9, AREA_AFTER + 0x48(%rax)
        mov %r10, AREA_AFTER + 0x50(%rax)
        mov %r11, AREA_AFTER + 0x58(%rax)
        mov %r12, AREA_AFTER + 0x60(%rax)
        mov %r13, AREA_AFTER + 0x68(%rax)
        mov %r14, AREA_AFTER + 0x70(%rax)
        mov %r15, AREA_AFTER + 0x78(%rax)
        mov -16(%rsp), %rbx
        mov %rbx, AREA_AFTER(%rax)
        lea -512(%rsp), %rsp
        pushfq
        popq AREA_AFTER + 0x80(%rax)
        pushq $2
        popfq
        lea 512(%rsp), %rsp
        mov %rax, %rdi
        CALL CALL_CHECK
        mov -8(%rsp), %rdi
        decq AREA_ROUNDS(%rdi)
        jnz program_contract
        CALL CALL_EXIT

program_spin:
1:      cmpl $0, (%rdi)
        je 1b
        CALL CALL_EXIT

program_set:
        movl $1, (%rdi)
        CALL CALL_EXIT

// rdi = how often: reports the ticks of as many calls.
program_time:
        mov %rdi, %rbx
        rdtsc
        shl $32, %rdx
        or %rax, %rdx
        mov %rdx, %rbp
1:      CALL CALL_PARENT
        dec %rbx
        jnz 1b
        rdtsc
        shl $32, %rdx
        or %rax, %rdx
        sub %rbp, %rdx
        mov %rdx, %rdi
        CALL CALL_REPORT
        CALL CALL_EXIT

// rdi = a value that this thread keeps in vector registers and the FS base while others run.
program_vector:
        mov %rdi, %rbp
        movq %rdi, %xmm7
        wrfsbase %rdi
        mov $1000, %ebx
1:      CALL CALL_YIELD
        movq %xmm7, %rax
        cmp %rax, %rbp
        jne 2f
        rdfsbase %rax
        cmp %rax, %rbp
        jne 2f
        dec %ebx
        jnz 1b
        CALL CALL_EXIT
2:      CALL CALL_FAIL

// rdi = an address that becomes memory when touched; rsi = one that does not.
program_faults:
        movl $42, (%rdi)
        cmpl $42, (%rdi)
        jne 2b
        mov %rsi, %rbx
        add $4096, %rdi
        CALL CALL_COPY
        test %rax, %rax
        jnz 2b
        mov %rbx, %rdi
        CALL CALL_COPY
        cmp $-14, %rax
        jne 2b
        CALL CALL_EXIT

        .balign 4096
        .section .note.GNU-stack, "", @progbits
