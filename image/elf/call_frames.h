// From the registers in a function to those of its caller, by the call frame instructions in .eh_frame.
//
// Compilers write them for every function of x86-64, with or without frame pointers; debuggers and C++ exceptions go by them. For
// backtraces of crashed programs (cli/backtrace.h). Why not libunwind: its evaluation of expressions can be made to go on for
// ever (a jump backwards) or to divide the smallest number by -1, and the file may be hostile. Here work is bounded by the size of what is
// read, and every offset is checked. Pure. Specification: LSB 5.0 core §10.6, DWARF 5 §6.4; psABI x86-64 §3.7.
#pragma once

#include "image/elf/dwarf_expression.h"
#include "image/elf/eh_frame.h"
#include "image/elf/view.h"

namespace husk::image {

// What the tables say of one function. It refers to the file's bytes.
struct CallFrame {
  Cie cie;
  Fde fde;
};

// The function that holds an address of the file: by the search table of .eh_frame_hdr, without one by a walk through .eh_frame.
std::optional<CallFrame> find_call_frame(const ElfView& elf, u64 address);

// The caller's registers when the function is at `address` of the file, with the stack pointer as it is behind the call. Nothing if
// the tables are damaged or ask for what is not known. An rip that is not known means that there is no caller.
std::optional<DwarfRegisters> caller_registers(const CallFrame& frame, u64 address, const DwarfRegisters& registers, const ReadWord& read);

}  // namespace husk::image
