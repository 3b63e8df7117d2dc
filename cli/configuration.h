// The boot configuration (abi/boot_config.h) of one run: the image's own, overlaid by the options.
#pragma once

#include <span>
#include <vector>

#include "cli/options.h"

namespace husk::cli {

// Of an image, arguments given replace its own but argv[0]; behind a program's they are added. Variables replace those of the same name.
enum class TargetKind { image, program };
std::vector<u8> make_configuration(std::span<const u8> from_image, const RunOptions& options, TargetKind kind);

}  // namespace husk::cli
