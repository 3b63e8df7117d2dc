// EROFS reader: the image's root file system, in memory. Uncompressed files only; extended attributes are not shown.
//
// The image was checked when it was made, but nothing here relies on that: an inode is checked against the image when it is
// loaded (after that its data is known to be inside), a directory block when it is looked at. What is wrong gives EUCLEAN.
// Files are mapped from the image's own frames, which never change.
#include <string.h>

#include <algorithm>

#include "kernel/fs/devices.h"
#include "kernel/fs/erofs_format.h"
#include "kernel/fs/file_systems.h"
#include "kernel/fs/inode_file.h"
#include "kernel/mem/frames.h"
#include "kernel/vfs/open_flags.h"

namespace husk::fs {

namespace {

using namespace erofs;
using Bytes = std::span<const u8>;

constexpr u64 kBlockSize = u64{1} << kBlockBits;
static_assert(kBlockSize == kPageSize);
constexpr size_t kNameMax = 255, kLinkMax = 4095;

class ErofsInode;

class Volume : public RefCounted<Volume> {
 public:
  Volume(Bytes image, PhysAddr physical) : image_(image), physical_(physical), device_(vfs::new_anonymous_device()) {}
  Result<u64> load();  // gives the root's nid
  Result<Ref<ErofsInode>> inode(u64 nid);
  Result<Bytes> slice(u64 offset, u64 size) const {
    if (offset > image_.size() || size > image_.size() - offset) return Error(EUCLEAN);
    return image_.subspan(offset, size);
  }
  template <typename T>
  Result<T> read(u64 offset) const {
    Bytes bytes = TRY(slice(offset, sizeof(T)));
    T value;
    memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }
  PhysAddr physical(u64 offset) const { return physical_ + offset; }
  u64 device() const { return device_; }
  i64 build_time() const { return static_cast<i64>(superblock_.build_time); }  // compact inodes have no time of their own
  vfs::FileSystemStat statistics() const {
    vfs::FileSystemStat result;
    result.magic = kMagic;
    result.blocks = superblock_.blocks;
    result.files = superblock_.inodes;
    result.flags = 1;  // ST_RDONLY
    return result;
  }

 private:
  Bytes image_;
  PhysAddr physical_;
  u64 device_;
  Superblock superblock_ = {};
};

class ErofsInode final : public vfs::Inode {
 public:
  ErofsInode(Ref<Volume> volume, u64 nid) : volume_(std::move(volume)), nid_(nid) {}
  Result<void> load(u64 offset);
  vfs::Stat stat() override { return stat_; }
  Result<vfs::FileSystemStat> file_system_stat() override { return volume_->statistics(); }
  Result<Ref<vfs::Inode>> lookup(std::string_view name) override;
  Result<String> read_link() override;
  Result<Ref<vfs::File>> open(u32 flags) override;
  Result<void> truncate(u64) override { return Error(EROFS); }
  Result<Ref<mem::MemoryObject>> memory_object(std::string_view name) override;

  u64 size() const { return stat_.size; }
  u64 plain_size() const { return plain_size_; }
  PhysAddr plain_start() const { return volume_->physical(plain_offset_); }
  // The contiguous bytes from `offset` (< size()) on.
  Bytes piece(u64 offset) const {
    if (offset < plain_size_) return plain().subspan(offset);
    return tail().subspan(offset - plain_size_);
  }
  // Directories: the block'th block; its entries.
  Bytes block(u64 block) const {
    Bytes bytes = piece(block * kBlockSize);
    return bytes.first(std::min<u64>(bytes.size(), kBlockSize));
  }
  u64 blocks() const { return align_up(size(), kBlockSize) / kBlockSize; }

 private:
  Bytes plain() const { return volume_->slice(plain_offset_, plain_size_).release(); }
  Bytes tail() const { return volume_->slice(tail_offset_, size() - plain_size_).release(); }
  Result<void> place_data(u64 inode_end, u16 layout, u32 start_block);

  Ref<Volume> volume_;
  u64 nid_;
  vfs::Stat stat_;
  u64 plain_offset_ = 0, plain_size_ = 0;  // whole blocks, or all of the file
  u64 tail_offset_ = 0;                    // behind the inode (flat inline)
};

// One block of a directory, checked as far as each access needs.
class DirectoryBlock {
 public:
  static Result<DirectoryBlock> at(Bytes bytes) {
    if (bytes.size() < sizeof(DirectoryRecord)) return Error(EUCLEAN);
    DirectoryBlock result(bytes);
    u16 first = result.record(0).name_offset;
    if (first == 0 || first % sizeof(DirectoryRecord) != 0 || first > bytes.size()) return Error(EUCLEAN);
    result.count_ = first / sizeof(DirectoryRecord);
    return result;
  }
  size_t count() const { return count_; }
  DirectoryRecord record(size_t index) const {
    DirectoryRecord result;
    memcpy(&result, bytes_.data() + index * sizeof(result), sizeof(result));
    return result;
  }
  Result<std::string_view> name(size_t index) const {
    size_t begin = record(index).name_offset;
    size_t end = index + 1 < count_ ? record(index + 1).name_offset : bytes_.size();
    if (begin < count_ * sizeof(DirectoryRecord) || begin >= end || end > bytes_.size()) return Error(EUCLEAN);
    const char* text = reinterpret_cast<const char*>(bytes_.data() + begin);
    std::string_view result(text, strnlen(text, end - begin));
    if (result.empty() || result.size() > kNameMax || result.find('/') != result.npos) return Error(EUCLEAN);
    return result;
  }

 private:
  explicit DirectoryBlock(Bytes bytes) : bytes_(bytes) {}
  Bytes bytes_;
  size_t count_ = 1;
};

class ErofsFile final : public InodeFile {
 public:
  explicit ErofsFile(Ref<ErofsInode> inode) : InodeFile(inode), file_(std::move(inode)) {}
  Result<Ref<mem::MemoryObject>> memory_object() override {
    if (object_) return object_;
    String name = TRY(describe());
    object_ = TRY(file_->memory_object(name));
    return object_;
  }

 protected:
  Result<size_t> read_at(vfs::IoBuffer& buffer, u64 offset) override {
    size_t moved = 0;
    while (offset + moved < file_->size() && buffer.remaining() > 0) {
      Bytes piece = file_->piece(offset + moved);
      Result<size_t> got = buffer.put(piece.data(), piece.size());
      if (!got.ok() && moved == 0) return got.error();
      if (!got.ok()) break;
      moved += *got;
      if (*got < piece.size()) break;
    }
    return moved;
  }
  Result<size_t> write_at(vfs::IoBuffer&, u64) override { return Error(EBADF); }

 private:
  Ref<ErofsInode> file_;
  Ref<mem::MemoryObject> object_;
};

// Positions are block * 4096 + index * 12: they never change.
class ErofsDirectory final : public InodeFile {
 public:
  explicit ErofsDirectory(Ref<ErofsInode> inode) : InodeFile(inode), directory_(std::move(inode)) {}
  Result<void> read_directory(vfs::DirectoryVisitor& visitor) override {
    while (position / kBlockSize < directory_->blocks()) {
      u64 start = align_down(position, kBlockSize);
      size_t index = (position - start) / sizeof(DirectoryRecord);
      DirectoryBlock block = TRY(DirectoryBlock::at(directory_->block(start / kBlockSize)));
      if (index < block.count()) {
        DirectoryRecord record = block.record(index);
        vfs::DirectoryEntry entry{record.nid, entry_type(record.type), TRY(block.name(index))};
        if (!visitor.visit(entry, next_position(start, index, block.count()))) return {};
      }
      position = next_position(start, index, block.count());
    }
    return {};
  }

 private:
  bool seeks_by_cookie() const override { return true; }
  static u64 next_position(u64 start, size_t index, size_t count) {
    return index + 1 < count ? start + (index + 1) * sizeof(DirectoryRecord) : start + kBlockSize;
  }
  static u8 entry_type(u8 type) {
    constexpr u8 kTypes[] = {0, 8, 4, 2, 6, 1, 12, 10};  // DT_*
    return type < sizeof(kTypes) ? kTypes[type] : 0;
  }
  Ref<ErofsInode> directory_;
};

// The pages of a file. A tail that shares a block with metadata is copied to a frame of its own, once.
class ErofsObject final : public mem::MemoryObject {
 public:
  ErofsObject(Ref<ErofsInode> inode, String name) : inode_(std::move(inode)), name_(std::move(name)) {}
  ~ErofsObject() override {
    if (tail_frame_.value != 0) mem::release_frame(tail_frame_);
  }
  Result<mem::PageRun> pages(u64 index, u64 wanted, mem::Access access) override {
    u64 pages = align_up(inode_->size(), kPageSize) / kPageSize;
    if (index >= pages) return Error(ENXIO);
    if (access == mem::Access::write) return Error(EACCES);
    u64 in_image = align_up(inode_->plain_size(), kPageSize) / kPageSize;
    if (index < in_image) return mem::PageRun{inode_->plain_start() + index * kPageSize, std::min(wanted, in_image - index)};
    if (tail_frame_.value == 0) {
      tail_frame_ = TRY(mem::allocate_frames(0, mem::Zeroed::yes));
      Bytes tail = inode_->piece(index * kPageSize);
      memcpy(mem::direct(tail_frame_), tail.data(), tail.size());
    }
    return mem::PageRun{tail_frame_, 1};
  }
  bool immutable() const override { return inode_->plain_size() == inode_->size(); }
  const char* name() const override { return name_.c_str(); }
  u64 device() const override { return inode_->stat().device; }
  u64 inode() const override { return inode_->stat().inode; }

 private:
  Ref<ErofsInode> inode_;
  String name_;
  PhysAddr tail_frame_;
};

Result<u64> Volume::load() {
  superblock_ = TRY(read<Superblock>(kSuperblockOffset));
  if (superblock_.magic != kMagic) return Error(EINVAL);
  if (superblock_.block_bits != kBlockBits) return Error(EINVAL);
  if ((superblock_.feature_incompat & ~(kIncompatZeroPadding | kIncompatChunkedFiles)) != 0) return Error(EOPNOTSUPP);
  return u64{superblock_.root_nid};
}

Result<Ref<ErofsInode>> Volume::inode(u64 nid) {
  u64 offset;
  if (!checked_mul(nid, kInodeSlot, &offset) || !checked_add(offset, superblock_.meta_block * kBlockSize, &offset)) {
    return Error(EUCLEAN);
  }
  Ref<ErofsInode> inode = TRY(make_ref<ErofsInode>(Ref<Volume>::share(this), nid));
  TRY(inode->load(offset));
  return inode;
}

Result<void> ErofsInode::load(u64 offset) {
  CompactInode compact = TRY(volume_->read<CompactInode>(offset));
  u64 end = offset + sizeof(CompactInode);
  u32 start = compact.start_block_or_device;
  stat_.device = volume_->device();
  stat_.inode = nid_;
  stat_.mode = compact.mode;
  if ((compact.format & 1) == 0) {
    stat_.size = compact.size;
    stat_.links = compact.links;
    stat_.uid = compact.uid;
    stat_.gid = compact.gid;
    stat_.modified.seconds = volume_->build_time();
  } else {
    ExtendedInode extended = TRY(volume_->read<ExtendedInode>(offset));
    end = offset + sizeof(ExtendedInode);
    stat_.size = extended.size;
    stat_.links = extended.links;
    stat_.uid = extended.uid;
    stat_.gid = extended.gid;
    stat_.modified = {static_cast<i64>(extended.modified), extended.modified_ns % 1'000'000'000};
  }
  stat_.accessed = stat_.changed = stat_.modified;
  if (compact.xattr_count != 0) end += 12 + 4 * (compact.xattr_count - u64{1});
  u16 layout = compact.format >> 1 & 7;
  switch (stat_.mode & vfs::kTypeMask) {
    case vfs::kRegular:
    case vfs::kDirectoryType: return place_data(end, layout, start);
    case vfs::kSymlink: return stat_.size > kLinkMax ? Result<void>(Error(EUCLEAN)) : place_data(end, layout, start);
    case vfs::kCharacterDevice:
    case vfs::kBlockDevice: stat_.special_device = start; [[fallthrough]];
    case vfs::kFifo:
    case vfs::kSocketType: stat_.size = 0; return {};
    default: return Error(EUCLEAN);
  }
}

Result<void> ErofsInode::place_data(u64 inode_end, u16 layout, u32 start_block) {
  if (stat_.size == 0) return {};
  if (layout != kFlatPlain && layout != kFlatInline) return Error(EOPNOTSUPP);
  stat_.blocks = align_up(stat_.size, kBlockSize) / 512;
  plain_offset_ = start_block * kBlockSize;
  plain_size_ = stat_.size;
  if (layout == kFlatInline) {
    plain_size_ = align_down(stat_.size - 1, kBlockSize);
    tail_offset_ = inode_end;
    if (inode_end % kBlockSize + (stat_.size - plain_size_) > kBlockSize) return Error(EUCLEAN);
    (void)TRY(volume_->slice(tail_offset_, stat_.size - plain_size_));
  }
  if (plain_size_ == 0) plain_offset_ = 0;
  // Whole pages, because they are mapped as such.
  u64 pages;
  if (!checked_add(plain_size_, kPageSize - 1, &pages)) return Error(EUCLEAN);
  (void)TRY(volume_->slice(plain_offset_, align_down(pages, kPageSize)));
  return {};
}

Result<Ref<vfs::Inode>> ErofsInode::lookup(std::string_view name) {
  if (!is_directory()) return Error(ENOTDIR);
  // The last block whose first name is not behind `name`, then the entry in it.
  u64 low = 0, high = blocks();
  while (high - low > 1) {
    u64 middle = low + (high - low) / 2;
    DirectoryBlock middle_block = TRY(DirectoryBlock::at(block(middle)));
    (TRY(middle_block.name(0)) <= name ? low : high) = middle;
  }
  if (low == high) return Error(ENOENT);
  DirectoryBlock found = TRY(DirectoryBlock::at(block(low)));
  size_t first = 0, end = found.count();
  while (first < end) {
    size_t middle = first + (end - first) / 2;
    std::string_view candidate = TRY(found.name(middle));
    if (candidate == name) return Ref<vfs::Inode>(TRY(volume_->inode(found.record(middle).nid)));
    if (candidate < name) first = middle + 1;
    else end = middle;
  }
  return Error(ENOENT);
}

Result<String> ErofsInode::read_link() {
  if (!is_symlink()) return Error(EINVAL);
  String result;
  while (result.size() < size()) {
    Bytes bytes = piece(result.size());
    TRY(result.append({reinterpret_cast<const char*>(bytes.data()), bytes.size()}));
  }
  if (result.view().find('\0') != std::string_view::npos) return Error(EUCLEAN);
  return result;
}

Result<Ref<vfs::File>> ErofsInode::open(u32 flags) {
  Ref<ErofsInode> self = Ref<ErofsInode>::share(this);
  switch (stat_.mode & vfs::kTypeMask) {
    case vfs::kDirectoryType: return Ref<vfs::File>(TRY(make_ref<ErofsDirectory>(std::move(self))));
    case vfs::kCharacterDevice: return open_character_device(stat_.special_device, flags);
    case vfs::kRegular: break;
    default: return Error(ENXIO);
  }
  if ((flags & vfs::kOpenAccess) != 0) return Error(EROFS);
  return Ref<vfs::File>(TRY(make_ref<ErofsFile>(std::move(self))));
}

Result<Ref<mem::MemoryObject>> ErofsInode::memory_object(std::string_view name) {
  if ((stat_.mode & vfs::kTypeMask) != vfs::kRegular) return Error(ENODEV);
  String text = TRY(String::from(name));
  return Ref<mem::MemoryObject>(TRY(make_ref<ErofsObject>(Ref<ErofsInode>::share(this), std::move(text))));
}

}  // namespace

Result<Ref<vfs::Inode>> make_erofs(std::span<const u8> image, PhysAddr physical) {
  Ref<Volume> volume = TRY(make_ref<Volume>(image, physical));
  u64 root_nid = TRY(volume->load());
  Ref<ErofsInode> root = TRY(volume->inode(root_nid));
  if (!root->is_directory()) return Error(EUCLEAN);
  return Ref<vfs::Inode>(std::move(root));
}

}  // namespace husk::fs
