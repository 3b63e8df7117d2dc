// The manifest: what an image holds and does, as JSON in the image, for people and host tools. The kernel does not
// read it (it gets the boot configuration). Field names are stable; readers ignore what they do not know.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "image/file.h"
#include "image/rewrite/rewrite.h"

namespace husk::image {

struct FileReport {
  std::string path;
  RewriteReport sites;
};

struct Manifest {
  std::string program;
  std::vector<std::string> arguments, environment;
  std::string directory = "/";
  u64 memory = 0;  // bytes; 0: the monitor's default
  bool jit = false;
  std::vector<FileReport> files;  // ELF files with system-call sites, by path
  std::vector<std::string> warnings;
  u64 file_count = 0;
};

nlohmann::json to_json(const Manifest& manifest);
// Throws Error that begins with `name` if it is not a manifest.
Manifest manifest_from_json(Bytes text, const std::string& name);

}  // namespace husk::image
