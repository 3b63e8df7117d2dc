// See cli/embedded.h and cli/embedded.S.
#include "cli/embedded.h"

extern "C" const unsigned char husk_embedded_kernel[], husk_embedded_kernel_end[], husk_embedded_nub[], husk_embedded_nub_end[];

namespace husk::cli {

std::span<const u8> embedded_kernel() { return {husk_embedded_kernel, husk_embedded_kernel_end}; }
std::span<const u8> embedded_nub() { return {husk_embedded_nub, husk_embedded_nub_end}; }

}  // namespace husk::cli
