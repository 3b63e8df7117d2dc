// The boot configuration (abi/boot_config.h) of one run: the image's own, overlaid by the options.
#pragma once

#include <span>
#include <vector>

#include "cli/options.h"

namespace husk::cli {

// Arguments given replace the image's but the first (argv[0]), which `own_name` replaces unless it is empty; variables replace those of
// the same name.
std::vector<u8> make_configuration(std::span<const u8> from_image, const RunOptions& options, const std::string& own_name);

}  // namespace husk::cli
