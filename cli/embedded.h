// The kernel and nub ELF files inside this program.
#pragma once

#include <span>

#include "base/types.h"

namespace husk::cli {

std::span<const u8> embedded_kernel();
std::span<const u8> embedded_nub();

}  // namespace husk::cli
