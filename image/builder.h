// Builds an image: program, libraries, files, nub, kernel and manifest in one bootable file (abi/image_format.h).
//
// The entry points of the image library for `husk build` and `husk run PROGRAM`. No global state: several builds may
// run at once. Errors are thrown as image::Error with a message for the user; nothing is left behind.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "image/file.h"
#include "image/manifest/manifest.h"
#include "image/rootfs/plan.h"

namespace husk::image {

// A file, or its bytes if they are in memory already (then `path` is only its name in messages).
struct Blob {
  std::string path;
  Bytes bytes;
};

struct BuildRequest : PlanRequest {
  std::string directory = "/";
  u64 memory = 0;    // bytes; 0: the monitor's default
  bool jit = false;  // recipes can set it too
  Blob nub, kernel;
};

struct Progress {
  const char* step;  // "files", "rewriting", "file system", "writing"
  std::string detail;
  u64 done, total;
};
using ProgressFunction = std::function<void(const Progress&)>;

// Writes the image to `output` (replaced only when the new one is complete) and returns its manifest.
Manifest build_image(const BuildRequest& request, const std::string& output, const ProgressFunction& progress = {});

// Names the image that build_image would make, in milliseconds: for a cache of images. Looks at the program's bytes
// (up to 4 MiB), the identity of every other file (see plan.h), the options, and the bytes of nub and kernel.
std::string input_digest(const BuildRequest& request);

}  // namespace husk::image
