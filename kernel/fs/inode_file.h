// An open regular file or directory over an inode: positions, seeking, appending. File systems add the moving of bytes.
#pragma once

#include "kernel/vfs/file.h"
#include "kernel/vfs/inode.h"

namespace husk::fs {

class InodeFile : public vfs::File {
 public:
  explicit InodeFile(Ref<vfs::Inode> inode) : inode_(std::move(inode)) { kind = Kind::inode; }
  Result<size_t> read(vfs::IoBuffer& buffer, const u64* offset) final;
  Result<size_t> write(vfs::IoBuffer& buffer, const u64* offset) final;
  Result<u64> seek(i64 offset, int whence) override;
  Result<void> truncate(u64 size) override { return inode_->truncate(size); }
  Result<void> sync(bool) override { return {}; }
  Result<vfs::Stat> stat() override { return inode_->stat(); }
  Result<vfs::FileSystemStat> file_system_stat() override { return inode_->file_system_stat(); }
  Result<Ref<File>> reopen(u32 open_flags) override { return inode_->open(open_flags); }

 protected:
  virtual Result<size_t> read_at(vfs::IoBuffer&, u64) { return Error(EISDIR); }
  virtual Result<size_t> write_at(vfs::IoBuffer&, u64) { return Error(EISDIR); }
  // SEEK_DATA and SEEK_HOLE below the end of the file.
  virtual u64 next_data(u64 from) { return from; }
  virtual u64 next_hole(u64) { return inode_->stat().size; }
  virtual bool seeks_by_cookie() const { return false; }  // directories: any position is as good as another
  vfs::Inode& inode() { return *inode_; }

 private:
  Ref<vfs::Inode> inode_;
};

}  // namespace husk::fs
