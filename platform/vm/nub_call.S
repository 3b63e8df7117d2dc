// i64 kernel_nub_call(u64 count): the one `syscall` instruction of the kernel. The nub knows nub calls by its return address.
// SAFETY: the nub clobbers rcx and r11 only, which the caller does not keep over a call.
        .text
        .globl kernel_nub_call, kernel_nub_call_site
        .type kernel_nub_call, @function
kernel_nub_call:
        syscall
kernel_nub_call_site:
        ret
        .size kernel_nub_call, . - kernel_nub_call
        .section .note.GNU-stack, "", @progbits
