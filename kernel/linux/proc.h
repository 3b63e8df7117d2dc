// What the files of /proc and /sys are made from: printing into a String, and a builder that makes the folders on the way.
#pragma once
#undef linux

#include <string_view>

#include "base/ref.h"
#include "base/result.h"
#include "base/vec.h"
#include "kernel/fs/synthetic.h"

namespace husk::linux {

Result<void> print(String& out, const char* format, ...) __attribute__((format(printf, 2, 3)));

enum class Writable : bool { no, yes };  // what is written is accepted and ignored

class TreeBuilder {
 public:
  static Result<TreeBuilder> create();
  // Paths are relative to the root of the tree; a path that ends in '/' is a folder.
  Result<void> text(std::string_view path, fs::TextFunction function, void* context = nullptr, Writable writable = Writable::no);
  Result<void> constant(std::string_view path, const char* text, Writable writable = Writable::no);
  Result<void> link(std::string_view path, fs::TextFunction target, void* context = nullptr);
  Result<void> dynamic(std::string_view path, fs::DynamicDirectory& directory);
  Result<void> folder(std::string_view path);
  fs::SyntheticDirectory& root() { return *folders_[0].directory; }
  Ref<vfs::Inode> inode() const { return fs::as_inode(folders_[0].directory); }
  Ref<fs::SyntheticDirectory> release_root() { return std::move(folders_[0].directory); }

 private:
  struct Folder {
    std::string_view path;  // texts of the tables in proc*.cc: static
    Ref<fs::SyntheticDirectory> directory;
  };
  TreeBuilder() = default;
  Result<fs::SyntheticDirectory*> directory(std::string_view path);
  Vec<Folder> folders_;
};

struct ConstantText {
  const char* path;
  const char* text;
  Writable writable = Writable::no;
};
struct MadeText {
  const char* path;
  fs::TextFunction function;
  Writable writable = Writable::no;
};

// The folder of the process, and that of one thread of it; `context` of these texts is the tid, 0 for the process.
Result<void> add_process_texts(TreeBuilder& builder, int tid);
Result<void> add_machine_texts(TreeBuilder& builder);    // /proc/meminfo, cpuinfo, ...
Result<void> add_settings(TreeBuilder& builder);         // /proc/sys
Result<void> add_network_texts(TreeBuilder& builder);    // /proc/net, /proc/sys/net
Result<void> build_sys(TreeBuilder& builder);            // /sys
Result<void> add_network_devices(TreeBuilder& builder);  // /sys/class/net
Result<Ref<vfs::Inode>> make_process_inode();            // /proc/<pid>

}  // namespace husk::linux
