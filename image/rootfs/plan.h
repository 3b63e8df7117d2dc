// From "run this program" to the complete list of files of its image, without copying or reading much.
//
// Cheap enough to be made on every `husk run PROGRAM`, which compares its digest with the cache. builder.cc turns it
// into an image.
#pragma once

#include <string>
#include <vector>

#include "image/rootfs/tree.h"

namespace husk::image {

struct WithPath {
  std::string host;
  std::string image;  // path in the image; empty: as on the host
};

struct PlanRequest {
  std::string program;                 // a path, or a name that is searched in PATH
  std::vector<std::string> arguments;  // without argv[0]
  std::vector<std::string> environment;
  std::vector<WithPath> with;
};

struct Plan {
  Tree tree;
  std::string program;                 // path in the image; a script's interpreter
  std::vector<std::string> arguments;  // with argv[0]
  bool jit = false;                    // a recipe says that the program compiles at run time
  std::vector<std::string> warnings;   // libraries that optional parts miss
};

// Throws Error; all missing libraries are named in one.
Plan make_plan(const PlanRequest& request);

// Where a program of this name is: as the shell finds it. Throws Error if there is none.
std::string find_program(const std::string& name);

// A digest over what the plan's files are: path, kind, mode, and of host files size, times, device and inode.
// It does not see: changed contents with equal size, inode, modification and change time (raw writes to a disk).
Digest identity(const Plan& plan);

}  // namespace husk::image
