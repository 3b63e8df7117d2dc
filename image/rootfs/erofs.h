// Writes a Tree as an EROFS image by mkfs.erofs(1): uncompressed, every file's bytes page aligned and contiguous, so
// that the kernel maps them straight from the image. Same tree, same bytes.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "image/rootfs/tree.h"

namespace husk::image {

// `replaced`: contents that take the place of a file's own (rewritten programs), by path.
// Throws Error; `directory` is scratch space. Returns the image's path below it.
std::string write_erofs(const Tree& tree, const std::map<std::string, std::vector<u8>>& replaced, const std::string& directory);

}  // namespace husk::image
