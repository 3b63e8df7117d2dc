// tmpfs(5), and the overlay: a tmpfs whose directories and files may have something read-only below them.
//
// A directory with a lower one takes names from it when they are looked up; a name that was removed stays as a whiteout. A file
// with a lower one reads from it until its pages are written, one by one. So a renamed directory moves with all it
// holds, hard links stay together, and nothing is copied that is not written.
#pragma once

#include "kernel/fs/inode_file.h"
#include "kernel/fs/paged_data.h"
#include "kernel/vfs/inode.h"

namespace husk::fs {

constexpr u64 kTmpfsMagic = 0x01021994, kOverlayMagic = 0x794c7630;

struct TmpfsVolume : RefCounted<TmpfsVolume> {
  Ref<Budget> budget;
  u64 device = vfs::new_anonymous_device();
  u64 magic = kTmpfsMagic;
  u64 next_inode = u64{1} << 32;  // above those of lower files, which keep theirs
  u64 inodes = 0;
};

class Node : public vfs::Inode {
 public:
  Node(Ref<TmpfsVolume> volume, u32 mode);
  ~Node() override;
  vfs::Stat stat() override { return stat_; }
  Result<vfs::FileSystemStat> file_system_stat() override;
  Result<void> set_attributes(const vfs::Attributes& attributes) override;
  void take_from_lower(const vfs::Stat& lower);  // number, owner, times
  u64 number() const { return stat_.inode; }
  void changed() { stat_.changed = vfs::current_time(); }
  void linked(int by) {
    stat_.links += static_cast<u32>(by);
    changed();
  }

 protected:
  friend class DirectoryNode;
  void modified() { stat_.changed = stat_.modified = vfs::current_time(); }
  Ref<TmpfsVolume> volume_;
  vfs::Stat stat_;
};

class FileNode final : public Node {
 public:
  FileNode(Ref<TmpfsVolume> volume, u32 mode) : Node(std::move(volume), mode) {}
  void set_lower(Ref<vfs::Inode> lower) { lower_ = std::move(lower); }
  vfs::Stat stat() override;
  Result<Ref<vfs::File>> open(u32 flags) override;
  Result<void> truncate(u64 size) override;
  Result<Ref<mem::MemoryObject>> memory_object(std::string_view name) override;

  Result<size_t> read(vfs::IoBuffer& buffer, u64 offset);
  Result<size_t> write(vfs::IoBuffer& buffer, u64 offset);
  Result<void> allocate(int mode, u64 offset, u64 size);
  PagedData* data_if_any() { return data_.get(); }
  u64 size() const { return data_ ? data_->size() : stat_.size; }
  u32 seals = 1;  // F_SEAL_SEAL: none can be added; memfds with MFD_ALLOW_SEALING start with none

 private:
  Result<PagedData*> data();  // the file's own pages, from now on
  Result<vfs::File*> lower_file();
  Ref<vfs::Inode> lower_;
  Ref<vfs::File> lower_file_;
  Ref<PagedData> data_;
};

class SymlinkNode final : public Node {
 public:
  SymlinkNode(Ref<TmpfsVolume> volume, String target) : Node(std::move(volume), vfs::kSymlink | 0777), target_(std::move(target)) {
    stat_.size = target_.size();
  }
  Result<String> read_link() override { return String::from(target_); }
  Result<Ref<vfs::File>> open(u32) override { return Error(ELOOP); }

 private:
  String target_;
};

// FIFO, device or socket name.
class SpecialNode final : public Node {
 public:
  SpecialNode(Ref<TmpfsVolume> volume, u32 mode, u64 special_device, Ref<vfs::Pipe> pipe);
  ~SpecialNode() override;
  Result<Ref<vfs::File>> open(u32 flags) override;

 private:
  Ref<vfs::Pipe> pipe_;
};

class DirectoryNode final : public Node {
 public:
  DirectoryNode(Ref<TmpfsVolume> volume, u32 mode);
  // The volume's root only, while nothing is in use.
  void become_overlay(Ref<vfs::Inode> lower) {
    volume_->magic = kOverlayMagic;
    take_from_lower(lower->stat());
    lower_ = std::move(lower);
  }
  Result<Ref<vfs::Inode>> lookup(std::string_view name) override;
  Result<Ref<vfs::Inode>> create(std::string_view name, u32 mode, u64 special_device) override;
  Result<Ref<vfs::Inode>> create_symlink(std::string_view name, std::string_view target) override;
  Result<Ref<vfs::Inode>> create_unnamed(u32 mode) override;
  Result<void> link(std::string_view name, vfs::Inode& target) override;
  Result<void> unlink(std::string_view name, bool directory) override;
  Result<void> rename(std::string_view name, vfs::Inode& new_directory, std::string_view new_name, u32 flags) override;
  Result<Ref<vfs::File>> open(u32 flags) override;

  Result<void> add(std::string_view name, Ref<Node> node);  // EEXIST, ENOENT in a removed directory
  // Lists from `position` on and moves it: 0 ".", 1 "..", then cookies, then the lower directory's positions.
  Result<void> list(u64& position, vfs::DirectoryVisitor& visitor);

 private:
  // Names in order of their cookies, which are given once and never change: listing goes on behind a cookie whatever is removed.
  struct Slot {
    enum class State : u8 { dead, live, whiteout };
    String name;
    Ref<Node> node;
    u64 cookie = 0;
    u32 hash = 0;
    State state = State::dead;
    bool from_lower = false;  // listed with the lower directory
  };
  class LowerFilter;
  static constexpr u64 kFirstCookie = 2, kLowerBase = u64{1} << 48;
  static u32 hash(std::string_view name);
  Slot* find(std::string_view name);
  Result<Slot*> find_live(std::string_view name);  // looks below, too; ENOENT
  Result<void> push(std::string_view name, Ref<Node> node, Slot::State state, bool from_lower);
  Result<void> make_room();
  Result<void> set(std::string_view name, Ref<Node> node);  // replaces or adds
  Result<void> remove(std::string_view name);               // leaves a whiteout where the lower directory has the name
  Result<bool> is_empty();
  Result<Ref<Node>> wrap(Ref<vfs::Inode> lower);
  Result<void> can_replace(Node& moved, Node& replaced);
  void account(Node& node, int by);  // a directory's ".." is a link to this one

  Ref<vfs::Inode> lower_;
  Vec<Slot> slots_;
  Vec<u32> index_;  // open addressing: slot number + 1
  size_t dead_ = 0;
  u64 next_cookie_ = kFirstCookie;
  u64 parent_number_ = 0;
};

Result<Ref<DirectoryNode>> make_tmpfs_root(u64 size_limit_bytes, u32 mode);

}  // namespace husk::fs
