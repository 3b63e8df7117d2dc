// The files that an image will hold, before anything is copied: paths and where their bytes come from.
//
// Paths are as on the host: symbolic links on the way to a file (/lib -> usr/lib) become links of the tree, so that
// every name by which the program knows a file works. Ordered by path, so that the same input gives the same image.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "image/file.h"

namespace husk::image {

struct TreeNode {
  enum class Kind { directory, file, link };
  Kind kind = Kind::directory;
  u32 mode = 0755;
  std::string source;   // file: path on the host; empty: `content` is the file
  std::string content;  // file without source; target of a link
  i64 modified = 0;     // Unix time; kept only where programs compare it (caches of interpreters)
};

enum class Times { zero, keep };

class Tree {
 public:
  const std::map<std::string, TreeNode>& nodes() const { return nodes_; }

  // Adds what is at `path` on the host at the same path: a file, or an empty directory.
  // Returns the path without symbolic links. Throws Error if there is nothing.
  std::string add_host(const std::string& path, Times times = Times::zero);
  // Adds a host directory and all that is in it. `keep` sees each path below and can refuse it.
  void add_host_directory(const std::string& host, const std::string& to, const std::function<bool(const std::string&)>& keep);
  // Adds a host file at another path.
  void add_file_as(const std::string& host, const std::string& to, Times times);
  void add_text(const std::string& path, std::string text, u32 mode = 0644);
  void add_link(const std::string& path, std::string target);
  void add_directory(const std::string& path, u32 mode = 0755);
  bool contains(const std::string& path) const;
  // The path with the tree's own symbolic links followed; the last parts need not exist.
  std::string resolve(const std::string& path) const;

  const std::vector<std::string>& left_out() const { return left_out_; }  // by add_host_directory: sockets, FIFOs, devices

 private:
  TreeNode& place(const std::string& path);  // makes parent directories
  std::map<std::string, TreeNode> nodes_;
  std::vector<std::string> left_out_;
};

// Absolute, without ".", ".." and double slashes; symbolic links are not looked at.
std::string absolute_path(const std::string& path);
std::string base_name(const std::string& path);
std::string parent_of(const std::string& path);

}  // namespace husk::image
