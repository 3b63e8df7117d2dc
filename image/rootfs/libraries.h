// Finds the libraries of a program as its own dynamic linker would: ld.so(8), "library search".
//
// glibc: DT_RPATH of the object and of those that loaded it (if it has no DT_RUNPATH), LD_LIBRARY_PATH, DT_RUNPATH,
// /etc/ld.so.cache, the system directories. musl: LD_LIBRARY_PATH, both paths, /etc/ld-musl-x86_64.path.
// DEVIATES: glibc-hwcaps subdirectories are not searched; the baseline variant of a library is the same program.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "image/elf/view.h"
#include "image/rootfs/tree.h"

namespace husk::image {

struct MissingLibrary {
  std::string name, needed_by;
};

class Libraries {
 public:
  Libraries(Tree& tree, const std::vector<std::string>& environment);
  // Adds what the ELF file at `path` (already in the tree) needs, recursively; files seen before cost nothing.
  void add_needs_of(const std::string& path, std::vector<MissingLibrary>& missing);
  // The same for a host file that lies at another path in the tree: only what it needs is added.
  void add_needs_of_copy(const std::string& host, std::vector<MissingLibrary>& missing);
  const std::set<std::string>& names() const { return names_; }  // DT_NEEDED names seen so far

 private:
  struct Object {
    std::string path;
    std::vector<std::string> rpath;  // own and inherited, $ORIGIN replaced
    bool musl;
  };
  void add(const Object& parent, std::vector<MissingLibrary>& missing);
  void add_needs(const Object& parent, const std::string& real, std::vector<MissingLibrary>& missing);
  std::string find(std::string_view name, const Object& parent, const std::vector<std::string>& runpath, bool use_rpath);
  void read_cache();
  void read_musl_path();

  Tree& tree_;
  std::vector<std::string> library_path_, system_directories_, musl_directories_;
  std::map<std::string, std::string, std::less<>> cache_;
  bool cache_read_ = false;
  std::set<std::string> visited_, names_;
};

}  // namespace husk::image
