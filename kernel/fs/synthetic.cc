// Directories and text files that are made up when they are looked at: /proc and /sys. The contents come from the providers.
//
// A text is made when a descriptor is first read, and again when it is read from its beginning (as seq_file does).
#include <algorithm>

#include "kernel/fs/file_systems.h"
#include "kernel/fs/inode_file.h"
#include "kernel/fs/synthetic.h"
#include "kernel/vfs/open_flags.h"

namespace husk::fs {

namespace {

constexpr u64 kProcMagic = 0x9fa0;

// All synthetic inodes share one device number: they are one file system.
u64 synthetic_device() {
  static constinit u64 device = 0;
  if (device == 0) device = vfs::new_anonymous_device();
  return device;
}

class TextFile final : public InodeFile {
 public:
  TextFile(Ref<vfs::Inode> inode, TextFunction function, void* context) : InodeFile(std::move(inode)), function_(function), context_(context) {}

 protected:
  Result<size_t> read_at(vfs::IoBuffer& buffer, u64 offset) override {
    if (!made_ || offset == 0) {
      text_.clear();
      TRY(function_(context_, text_));
      made_ = true;
    }
    if (offset >= text_.size()) return size_t{0};
    return buffer.put(text_.c_str() + offset, text_.size() - offset);
  }
  Result<size_t> write_at(vfs::IoBuffer& buffer, u64) override {
    size_t size = buffer.remaining();
    buffer.advance(size);
    return size;
  }

 private:
  TextFunction function_;
  void* context_;
  String text_;
  bool made_ = false;
};

class TextInode final : public SyntheticInode {
 public:
  TextInode(u32 mode, TextFunction function, void* context) : SyntheticInode(vfs::kRegular | mode), function_(function), context_(context) {}
  Result<Ref<vfs::File>> open(u32 flags) override {
    if ((flags & vfs::kOpenAccess) != 0 && (stat_.mode & 0200) == 0) return Error(EACCES);
    return Ref<vfs::File>(TRY(make_ref<TextFile>(Ref<vfs::Inode>::share(this), function_, context_)));
  }
  Result<void> truncate(u64) override { return (stat_.mode & 0200) == 0 ? Result<void>(Error(EACCES)) : Result<void>(); }
  Result<void> set_attributes(const vfs::Attributes&) override { return Error(EPERM); }

 private:
  TextFunction function_;
  void* context_;
};

class SymlinkInode final : public SyntheticInode {
 public:
  SymlinkInode(TextFunction function, void* context, String target)
      : SyntheticInode(vfs::kSymlink | 0777), function_(function), context_(context), target_(std::move(target)) {}
  Result<String> read_link() override {
    if (function_ == nullptr) return String::from(target_);
    String text;
    TRY(function_(context_, text));
    return text;
  }
  Result<Ref<vfs::File>> open(u32) override { return Error(ELOOP); }

 private:
  TextFunction function_;
  void* context_;
  String target_;
};

class FileLinkInode final : public SyntheticInode {
 public:
  explicit FileLinkInode(Ref<vfs::File> file) : SyntheticInode(vfs::kSymlink | mode_of(*file)), file_(std::move(file)) {
    stat_.size = 64;  // as Linux shows it
  }
  Result<String> read_link() override {
    String text = TRY(file_->describe());
    if (file_->path && file_->path.entry->deleted) TRY(text.append(" (deleted)"));
    return text;
  }
  Ref<vfs::File> linked_file() override { return file_; }
  Result<Ref<vfs::File>> open(u32) override { return Error(ELOOP); }

 private:
  static u32 mode_of(const vfs::File& file) { return (file.readable() ? 0500u : 0u) | (file.writable() ? 0300u : 0u); }
  Ref<vfs::File> file_;
};

class DynamicInode final : public SyntheticInode {
 public:
  explicit DynamicInode(DynamicDirectory& directory) : SyntheticInode(vfs::kDirectoryType | 0555), directory_(directory) { stat_.links = 2; }
  bool cacheable() const override { return false; }
  Result<Ref<vfs::Inode>> lookup(std::string_view name) override { return directory_.lookup(name); }
  Result<Ref<vfs::File>> open(u32 flags) override;

 private:
  friend class DynamicFile;
  DynamicDirectory& directory_;
};

constexpr u64 kAfterDots = 2;

// Gives "." and ".." and says whether there is room for more.
bool list_dots(u64& position, u64 inode, vfs::DirectoryVisitor& visitor) {
  constexpr u8 kType = vfs::directory_entry_type(vfs::kDirectoryType);
  constexpr std::string_view kNames[] = {".", ".."};
  for (; position < kAfterDots; ++position) {
    if (!visitor.visit({inode, kType, kNames[position]}, position + 1)) return false;
  }
  return true;
}

// Passes entries on with positions behind the dots', and keeps the file's position.
class ShiftedVisitor final : public vfs::DirectoryVisitor {
 public:
  ShiftedVisitor(vfs::DirectoryVisitor& out, u64& position) : out_(out), position_(position) {}
  bool visit(const vfs::DirectoryEntry& entry, u64 next_offset) override {
    if (!out_.visit(entry, next_offset + kAfterDots)) return false;
    position_ = next_offset + kAfterDots;
    return true;
  }

 private:
  vfs::DirectoryVisitor& out_;
  u64& position_;
};

class DynamicFile final : public InodeFile {
 public:
  explicit DynamicFile(Ref<DynamicInode> inode) : InodeFile(inode), inode_(std::move(inode)) {}
  Result<void> read_directory(vfs::DirectoryVisitor& visitor) override {
    if (!list_dots(position, inode_->stat().inode, visitor)) return {};
    ShiftedVisitor shifted(visitor, position);
    return inode_->directory_.list(position - kAfterDots, shifted);
  }

 private:
  bool seeks_by_cookie() const override { return true; }
  Ref<DynamicInode> inode_;
};

Result<Ref<vfs::File>> DynamicInode::open(u32) { return Ref<vfs::File>(TRY(make_ref<DynamicFile>(Ref<DynamicInode>::share(this)))); }

}  // namespace

SyntheticInode::SyntheticInode(u32 mode) {
  static constinit u64 next_inode = 1;
  stat_.device = synthetic_device();
  stat_.inode = next_inode++;
  stat_.mode = mode;
  stat_.block_size = 1024;
  stat_.accessed = stat_.modified = stat_.changed = vfs::current_time();
}

Result<vfs::FileSystemStat> SyntheticInode::file_system_stat() {
  vfs::FileSystemStat result;
  result.magic = kProcMagic;
  return result;
}

SyntheticDirectory::SyntheticDirectory() : SyntheticInode(vfs::kDirectoryType | 0555) { stat_.links = 2; }

Result<Ref<vfs::Inode>> SyntheticDirectory::lookup(std::string_view name) {
  for (const Named& each : entries_) {
    if (each.name.view() == name) return each.inode;
  }
  if (rest_ != nullptr) return rest_->lookup(name);
  return Error(ENOENT);
}

Result<void> SyntheticDirectory::list(u64& position, vfs::DirectoryVisitor& visitor) {
  if (!list_dots(position, stat_.inode, visitor)) return {};
  for (; position - kAfterDots < entries_.size(); ++position) {
    const Named& each = entries_[position - kAfterDots];
    vfs::Stat stat = each.inode->stat();
    if (!visitor.visit({stat.inode, vfs::directory_entry_type(stat.mode), each.name}, position + 1)) return {};
  }
  if (rest_ == nullptr) return {};
  const u64 base = kAfterDots + entries_.size();
  u64 within = position - entries_.size();
  struct Behind final : vfs::DirectoryVisitor {
    vfs::DirectoryVisitor& out;
    u64& at;
    u64 base;
    Behind(vfs::DirectoryVisitor& o, u64& a, u64 b) : out(o), at(a), base(b) {}
    bool visit(const vfs::DirectoryEntry& entry, u64 next_offset) override {
      if (!out.visit(entry, base + next_offset)) return false;
      at = base + next_offset;
      return true;
    }
  } behind(visitor, position, base);
  return rest_->list(within - kAfterDots, behind);
}

Result<void> SyntheticDirectory::add(std::string_view name, Ref<vfs::Inode> inode) {
  String text = TRY(String::from(name));
  if (inode->is_directory()) ++stat_.links;
  return entries_.push_back(Named{std::move(text), std::move(inode)});
}

namespace {

class SyntheticFile final : public InodeFile {
 public:
  explicit SyntheticFile(Ref<SyntheticDirectory> directory) : InodeFile(directory), directory_(std::move(directory)) {}
  Result<void> read_directory(vfs::DirectoryVisitor& visitor) override { return directory_->list(position, visitor); }

 private:
  bool seeks_by_cookie() const override { return true; }
  Ref<SyntheticDirectory> directory_;
};

}  // namespace

Result<Ref<vfs::File>> SyntheticDirectory::open(u32) { return Ref<vfs::File>(TRY(make_ref<SyntheticFile>(Ref<SyntheticDirectory>::share(this)))); }

Result<Ref<SyntheticDirectory>> make_synthetic_directory() { return make_ref<SyntheticDirectory>(); }
Ref<vfs::Inode> as_inode(const Ref<SyntheticDirectory>& directory) { return directory; }

Result<Ref<SyntheticDirectory>> add_directory(SyntheticDirectory& parent, std::string_view name) {
  Ref<SyntheticDirectory> directory = TRY(make_synthetic_directory());
  TRY(parent.add(name, directory));
  return directory;
}

Result<void> add_text(SyntheticDirectory& parent, std::string_view name, TextFunction function, void* context) {
  Ref<vfs::Inode> inode = TRY(make_text_inode(function, context));
  return parent.add(name, std::move(inode));
}

Result<void> add_writable_text(SyntheticDirectory& parent, std::string_view name, TextFunction function, void* context) {
  Ref<vfs::Inode> inode = TRY(make_ref<TextInode>(0644u, function, context));
  return parent.add(name, std::move(inode));
}

Result<void> add_symlink(SyntheticDirectory& parent, std::string_view name, TextFunction target, void* context) {
  Ref<vfs::Inode> inode = TRY(make_ref<SymlinkInode>(target, context, String()));
  return parent.add(name, std::move(inode));
}

Result<void> add_dynamic(SyntheticDirectory& parent, std::string_view name, DynamicDirectory& directory) {
  Ref<vfs::Inode> inode = TRY(make_dynamic_inode(directory));
  return parent.add(name, std::move(inode));
}

Result<void> add_inode(SyntheticDirectory& parent, std::string_view name, Ref<vfs::Inode> inode) { return parent.add(name, std::move(inode)); }

void set_rest(SyntheticDirectory& parent, DynamicDirectory& rest) { parent.set_rest(rest); }

Result<Ref<vfs::Inode>> make_text_inode(TextFunction function, void* context) {
  return Ref<vfs::Inode>(TRY(make_ref<TextInode>(0444u, function, context)));
}

Result<Ref<vfs::Inode>> make_symlink_inode(std::string_view target) {
  String text = TRY(String::from(target));
  return Ref<vfs::Inode>(TRY(make_ref<SymlinkInode>(nullptr, nullptr, std::move(text))));
}

Result<Ref<vfs::Inode>> make_file_link_inode(Ref<vfs::File> file) { return Ref<vfs::Inode>(TRY(make_ref<FileLinkInode>(std::move(file)))); }

Result<Ref<vfs::Inode>> make_dynamic_inode(DynamicDirectory& directory) { return Ref<vfs::Inode>(TRY(make_ref<DynamicInode>(directory))); }

}  // namespace husk::fs
