// Finds files in an image's root file system (uncompressed EROFS) for backtraces: the bytes of "/usr/bin/x" in the mapped image.
//
// The image is not trusted: every offset is checked, loops end. Layout: Linux Documentation/filesystems/erofs.rst, fs/erofs/erofs_fs.h.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/types.h"

namespace husk::cli {

class ImageFiles {
 public:
  // `root` is the file system's part of the image; it must outlive this.
  explicit ImageFiles(std::span<const u8> root);
  // The contents; follows symbolic links. Nothing if there is no such regular file.
  std::optional<std::vector<u8>> read(std::string_view path) const;

 private:
  struct Inode {
    u16 format, mode;
    u64 size, inline_offset;
    u64 data_offset;
  };
  std::optional<Inode> inode(u64 nid) const;
  std::optional<std::vector<u8>> contents(const Inode& inode) const;
  std::optional<u64> lookup(const Inode& directory, std::string_view name) const;
  std::optional<Inode> walk(std::string_view path, int links_left) const;
  template <typename T>
  std::optional<T> at(u64 offset) const;

  std::span<const u8> root_;
  u64 block_size_ = 0, meta_offset_ = 0, root_nid_ = 0;
};

}  // namespace husk::cli
