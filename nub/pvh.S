// PVH entry; see pvh.cc.
  .section .text.pvh, "ax"
  .globl pvh_entry
  .code32
pvh_entry:
  hlt
  jmp pvh_entry
  .section .note.GNU-stack, "", @progbits
