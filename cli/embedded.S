/* The kernel and the nub that `husk build` puts into images: whole ELF files, so that backtraces find their symbols. */
  .section .rodata
  .balign 16
  .globl husk_embedded_kernel, husk_embedded_kernel_end, husk_embedded_nub, husk_embedded_nub_end
husk_embedded_kernel:
#ifdef HUSK_KERNEL_ELF
  .incbin HUSK_KERNEL_ELF
#endif
husk_embedded_kernel_end:
  .byte 0
  .balign 16
husk_embedded_nub:
#ifdef HUSK_NUB_ELF
  .incbin HUSK_NUB_ELF
#endif
husk_embedded_nub_end:
  .byte 0
  .section .note.GNU-stack, "", @progbits
