// DWARF expressions as call frame information has them: PLT entries and signal trampolines say so where their caller's registers are.
// The bytes are not trusted: the stack is small and a jump backwards cannot go on for ever. Pure. Specification: DWARF 5 §2.5.
#pragma once

#include <functional>

#include "image/file.h"

namespace husk::image {

// Registers by their DWARF numbers (psABI x86-64, figure 3.36); nothing if a value is not known.
constexpr unsigned kDwarfRbp = 6, kDwarfRsp = 7, kDwarfRip = 16, kDwarfRegisters = 17;
using DwarfRegisters = std::array<std::optional<u64>, kDwarfRegisters>;

// 8 bytes of the program's memory, if they are known.
using ReadWord = std::function<std::optional<u64>(u64 address)>;

// Nothing if the expression has an operation that call frames do not need, or asks for what is not known.
std::optional<u64> evaluate(Bytes expression, const DwarfRegisters& registers, std::optional<u64> pushed, const ReadWord& read);

}  // namespace husk::image
