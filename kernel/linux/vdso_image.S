// The vDSO's shared object, page aligned in read-only data: its frames belong to the image and may be mapped executable.
        .section .rodata.vdso, "a", @progbits
        .balign 4096
        .globl husk_vdso_start, husk_vdso_end
        .hidden husk_vdso_start, husk_vdso_end
husk_vdso_start:
        .incbin HUSK_VDSO_FILE
        .balign 4096
husk_vdso_end:
        .section .note.GNU-stack, "", @progbits
