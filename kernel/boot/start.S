// kernel_start(const BootInfo*): the first instruction in ring 3. rsp = boot stack, gs base = VcpuShared, flags clean.
        .section .text.kernel_start, "ax", @progbits
        .globl kernel_start
        .type kernel_start, @function
kernel_start:
        xor %ebp, %ebp
        and $-16, %rsp
        call husk_main
        ud2
        .size kernel_start, . - kernel_start
        .section .note.GNU-stack, "", @progbits
