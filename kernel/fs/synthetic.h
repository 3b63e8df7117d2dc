// The directory class of file_systems.h's synthetic part, complete, for those who hold references to one.
#pragma once

#include "kernel/fs/file_systems.h"

namespace husk::fs {

class SyntheticInode : public vfs::Inode {
 public:
  explicit SyntheticInode(u32 mode);
  vfs::Stat stat() override { return stat_; }
  Result<vfs::FileSystemStat> file_system_stat() override;

 protected:
  vfs::Stat stat_;
};

class SyntheticDirectory final : public SyntheticInode {
 public:
  SyntheticDirectory();
  bool cacheable() const override { return rest_ == nullptr; }
  Result<Ref<vfs::Inode>> lookup(std::string_view name) override;
  Result<Ref<vfs::File>> open(u32 flags) override;
  Result<void> list(u64& position, vfs::DirectoryVisitor& visitor);
  Result<void> add(std::string_view name, Ref<vfs::Inode> inode);
  void set_rest(DynamicDirectory& rest) { rest_ = &rest; }

 private:
  struct Named {
    String name;
    Ref<vfs::Inode> inode;
  };
  Vec<Named> entries_;
  DynamicDirectory* rest_ = nullptr;
};

}  // namespace husk::fs
