// PVH entry: 32-bit protected mode without paging, ebx = hvm_start_info (Xen docs/misc/pvh; XEN_ELFNOTE_PHYS32_ENTRY).
//
// The whole image is at kImageLoadAddress. Behind it, at the next multiple of 2 MiB, this code makes itself a place to work:
// tables that map the first 4 GiB as they are and a private copy of the nub at kNubBase. Then it goes to 64-bit mode and pvh.cc.
// Scratch: 0 PML4, 0x1000 and 0x2000 PDPTs, 0x3000..0x6fff PDs, 0x7000 PD and 0x8000 PT of the nub, 0x9000 GDT, below 0x20000 stack,
// from 0x20000 the nub (at most 128 KiB), from 0x40000 the boot configuration.

#define IMAGE 0x200000
#define HEADER (IMAGE + 0x1000)
#define HEADER_FILE_SIZE (HEADER + 16)
#define HEADER_NUB_PARTS (HEADER + 24)
#define HEADER_PARTS (HEADER + 32)
#define PART_SIZE 40
#define NUB_COPY 0x20000

  .section .text.pvh, "ax"
  .globl pvh_entry
  .code32
pvh_entry:
  cli
  cld
  movl HEADER_FILE_SIZE, %ebp
  addl $(IMAGE + 0x1fffff), %ebp
  andl $0xffe00000, %ebp  // scratch
  leal NUB_COPY(%ebp), %esp
  movl %ebp, %edi
  xorl %eax, %eax
  movl $0x9000 / 4, %ecx
  rep stosl

  leal 0x1003(%ebp), %eax
  movl %eax, (%ebp)
  leal 0x2003(%ebp), %eax
  movl %eax, 511 * 8(%ebp)
  leal 0x7003(%ebp), %eax
  movl %eax, 0x2000 + 510 * 8(%ebp)
  leal 0x8003(%ebp), %eax
  movl %eax, 0x7000(%ebp)
  leal 0x3003(%ebp), %eax
  xorl %ecx, %ecx
1:
  movl %eax, 0x1000(%ebp, %ecx, 8)
  addl $0x1000, %eax
  incl %ecx
  cmpl $4, %ecx
  jne 1b
  movl $0x83, %eax
  xorl %ecx, %ecx
2:
  movl %eax, 0x3000(%ebp, %ecx, 8)
  addl $0x200000, %eax
  incl %ecx
  cmpl $2048, %ecx
  jne 2b
  leal (NUB_COPY + 3)(%ebp), %eax
  xorl %ecx, %ecx
3:
  movl %eax, 0x8000(%ebp, %ecx, 8)
  addl $0x1000, %eax
  incl %ecx
  cmpl $32, %ecx
  jne 3b

  movl HEADER_NUB_PARTS, %edx
  movl $HEADER_PARTS, %eax
4:
  movl (%eax), %esi  // file offset
  addl $IMAGE, %esi
  movl 8(%eax), %edi  // virtual offset
  leal NUB_COPY(%ebp, %edi), %edi
  movl 16(%eax), %ecx
  rep movsb
  addl $PART_SIZE, %eax
  decl %edx
  jnz 4b

  movl $0x0000ffff, 0x9008(%ebp)
  movl $0x00af9b00, 0x900c(%ebp)
  movl $0x0000ffff, 0x9010(%ebp)
  movl $0x00cf9300, 0x9014(%ebp)
  movw $23, 0x9020(%ebp)
  leal 0x9000(%ebp), %eax
  movl %eax, 0x9022(%ebp)
  lgdt 0x9020(%ebp)
  movl $0x620, %eax  // PAE OSFXSR OSXMMEXCPT
  movl %eax, %cr4
  movl %ebp, %cr3
  movl $0xc0000080, %ecx
  xorl %edx, %edx
  movl $0x901, %eax  // SCE LME NXE
  wrmsr
  movl $0x80010033, %eax  // PG WP NE ET MP PE
  movl %eax, %cr0
  pushl $8
  leal NUB_COPY + pvh_long - 0xffffffff80000000(%ebp), %eax
  pushl %eax
  lret

  .code64
pvh_long:
  movl $16, %eax
  movl %eax, %ds
  movl %eax, %es
  movl %eax, %ss
  movl %ebx, %edi
  movl %ebp, %esi
  leaq NUB_COPY(%rsi), %rsp
  movq $pvh_main, %rax
  call *%rax
  ud2

  // void pvh_enter(const CpuState*): everything but CR3, GDT, IDT, TSS and the general registers is in place. Offsets: CpuState.
  .globl pvh_enter
pvh_enter:
  movq 0x00(%rdi), %r8   // rip
  movq 0x08(%rdi), %r9   // rsp
  movq 0x10(%rdi), %r10  // rdi
  movq 0x18(%rdi), %r11  // rflags
  movq 0x48(%rdi), %rbx  // gs base
  movq 0x50(%rdi), %rbp  // gdt base
  movq 0x58(%rdi), %r12  // idt base
  movzwl 0x68(%rdi), %r13d  // gdt limit
  movzwl 0x6a(%rdi), %r14d  // idt limit
  movq 0x28(%rdi), %rax
  movq %rax, %cr3
  movq $pvh_stack_top, %rsp  // the vCPU's own, mapped from now on
  pushq $0
  pushq $0
  movw %r13w, (%rsp)
  movq %rbp, 2(%rsp)
  lgdt (%rsp)
  movw %r14w, (%rsp)
  movq %r12, 2(%rsp)
  lidt (%rsp)
  andb $0xfd, 0x38 + 5(%rbp)  // the TSS is described as busy, as a monitor wants it
  movl $0x38, %eax
  ltr %ax
  movl $0x2b, %eax
  movl %eax, %ds
  movl %eax, %es
  movl %eax, %fs
  movl %eax, %gs
  wrgsbase %rbx
  xorl %eax, %eax
  movl %eax, %ss
  pushq $0x2b
  pushq %r9
  pushq %r11
  pushq $0x33
  pushq %r8
  pushq %r10
  movq $apic_start, %rax
  call *%rax
  popq %rdi
  iretq
  .section .note.GNU-stack, "", @progbits
