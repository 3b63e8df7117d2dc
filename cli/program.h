// What the user's word stands for: an image file or a program, found as the shell would; and the image of a program, from the cache.
#pragma once

#include <string>

#include "cli/options.h"

namespace husk::cli {

struct Target {
  std::string path;  // absolute for programs
  bool is_image = false;
};

// Throws Failure with status 127 (not found) or 126 (cannot be run, and why).
Target find_target(const std::string& word);

// The path of an image of this program with these --with files: from ${XDG_CACHE_HOME:-~/.cache}/husk, or built now.
std::string cached_image(const std::string& program, const RunOptions& options);

}  // namespace husk::cli
