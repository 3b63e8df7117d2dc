// What well-known programs need besides the libraries that they name: a table, read by plan.cc.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

namespace husk::image {

struct Recipe {
  const char* program;  // fnmatch(3) pattern for the real name of the program or interpreter; null: none
  const char* library;  // pattern for a needed library; null: none
  // Globs; {name} is the program's real file name, {directory} the directory where it lies. Missing ones are passed over.
  std::vector<const char*> paths;
  std::vector<const char*> without;  // patterns for paths below that stay out
  bool jit;
  const char* why;
  std::vector<std::pair<const char*, const char*>> links = {};  // path, target: made in the image only
};

std::span<const Recipe> recipes();
bool path_matches(const std::string& path, const std::vector<const char*>& patterns);

}  // namespace husk::image
