// The instruction decoder: Zydis in 64-bit mode, loaded when the first instruction is decoded, because `husk run` of an image that
// exists needs none and each library costs its start a quarter of a millisecond. Throws Error if the library is missing. Any thread.
#pragma once

#include <Zydis/Zydis.h>

#include <optional>

#include "image/file.h"

namespace husk::image {

struct DecodedOperands {
  ZydisDecodedInstruction instruction;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

// The instruction at the start of `code`; nothing if these bytes are none.
std::optional<ZydisDecodedInstruction> decode_instruction(Bytes code);
std::optional<DecodedOperands> decode_operands(Bytes code);
bool is_part_of_rsp(ZydisRegister reg);

}  // namespace husk::image
