#include "kernel/fs/tmpfs.h"

#include <algorithm>

#include "kernel/fs/devices.h"
#include "kernel/fs/file_systems.h"
#include "kernel/vfs/open_flags.h"
#include "kernel/vfs/pipe.h"

namespace husk::fs {

namespace {

constexpr u32 kSealShrink = 2, kSealGrow = 4, kSealWrite = 8, kSealFutureWrite = 16, kSealSeal = 1;
constexpr u32 kSealsAll = kSealSeal | kSealShrink | kSealGrow | kSealWrite | kSealFutureWrite;
constexpr int kAllocateKeepSize = 1, kAllocatePunchHole = 2;

class TmpfsFile final : public InodeFile {
 public:
  explicit TmpfsFile(Ref<FileNode> node) : InodeFile(node), node_(std::move(node)) {}
  Result<void> allocate(int mode, u64 offset, u64 size) override { return node_->allocate(mode, offset, size); }
  Result<Ref<mem::MemoryObject>> memory_object() override {
    if (object_ && (object_.get() == node_->data_if_any() || node_->data_if_any() == nullptr)) return object_;
    String name = TRY(describe());
    object_ = TRY(node_->memory_object(name));
    return object_;
  }
  Result<String> describe() override {
    if (memfd_name_.empty()) return File::describe();
    return String::from(memfd_name_);
  }
  Result<Ref<File>> reopen(u32 open_flags) override {
    if (memfd_name_.empty()) return InodeFile::reopen(open_flags);
    String name = TRY(String::from(memfd_name_));
    Ref<TmpfsFile> file = TRY(make_ref<TmpfsFile>(node_));
    file->become_memfd(std::move(name));
    return Ref<File>(std::move(file));
  }
  void become_memfd(String name) {
    kind = Kind::memfd;
    memfd_name_ = std::move(name);
  }
  FileNode& node() { return *node_; }

 protected:
  Result<size_t> read_at(vfs::IoBuffer& buffer, u64 offset) override { return node_->read(buffer, offset); }
  Result<size_t> write_at(vfs::IoBuffer& buffer, u64 offset) override { return node_->write(buffer, offset); }
  u64 next_data(u64 from) override { return node_->data_if_any() != nullptr ? node_->data_if_any()->next_data(from) : from; }
  u64 next_hole(u64 from) override { return node_->data_if_any() != nullptr ? node_->data_if_any()->next_hole(from) : node_->size(); }

 private:
  Ref<FileNode> node_;
  Ref<mem::MemoryObject> object_;
  String memfd_name_;
};

Result<Ref<TmpfsVolume>> make_volume(u64 size_limit_bytes) {
  if (size_limit_bytes == 0) size_limit_bytes = mem::memory_statistics().total / 2;
  Ref<TmpfsVolume> volume = TRY(make_ref<TmpfsVolume>());
  volume->budget = TRY(make_ref<Budget>(size_limit_bytes / kPageSize));
  return volume;
}

}  // namespace

// --- Node ----------------------------------------------------------------------------------------------------------

Node::Node(Ref<TmpfsVolume> volume, u32 mode) : volume_(std::move(volume)) {
  ++volume_->inodes;
  stat_.device = volume_->device;
  stat_.inode = volume_->next_inode++;
  stat_.mode = mode;
  stat_.accessed = stat_.modified = stat_.changed = vfs::current_time();
}

Node::~Node() { --volume_->inodes; }

void Node::take_from_lower(const vfs::Stat& lower) {
  u64 device = stat_.device;
  stat_ = lower;
  stat_.device = device;
}

Result<vfs::FileSystemStat> Node::file_system_stat() {
  vfs::FileSystemStat result;
  result.magic = volume_->magic;
  result.blocks = volume_->budget->limit();
  result.free_blocks = volume_->budget->limit() - volume_->budget->used();
  result.files = std::max<u64>(volume_->budget->limit(), volume_->inodes);
  result.free_files = result.files - volume_->inodes;
  return result;
}

Result<void> Node::set_attributes(const vfs::Attributes& attributes) {
  if (attributes.mode != nullptr) stat_.mode = (stat_.mode & vfs::kTypeMask) | (*attributes.mode & 07777);
  if (attributes.uid != nullptr) stat_.uid = *attributes.uid;
  if (attributes.gid != nullptr) stat_.gid = *attributes.gid;
  if (attributes.accessed != nullptr) stat_.accessed = *attributes.accessed;
  if (attributes.modified != nullptr) stat_.modified = *attributes.modified;
  changed();
  return {};
}

// --- FileNode ------------------------------------------------------------------------------------------------------

vfs::Stat FileNode::stat() {
  vfs::Stat result = stat_;
  if (data_) {
    result.size = data_->size();
    result.blocks = data_->allocated_pages() * (kPageSize / 512);
  }
  return result;
}

Result<vfs::File*> FileNode::lower_file() {
  if (!lower_file_) lower_file_ = TRY(lower_->open(0));
  return lower_file_.get();
}

Result<PagedData*> FileNode::data() {
  if (data_) return data_.get();
  Ref<PagedData> data = TRY(make_ref<PagedData>(volume_->budget, stat_.device, stat_.inode));
  if (lower_) {
    (void)TRY(lower_file());
    data->set_lower(lower_file_, stat_.size);
  }
  data_ = std::move(data);
  return data_.get();
}

Result<Ref<vfs::File>> FileNode::open(u32 flags) {
  // From now on everybody sees what is written, whoever opened the file before.
  if ((flags & vfs::kOpenAccess) != 0) (void)TRY(data());
  return Ref<vfs::File>(TRY(make_ref<TmpfsFile>(Ref<FileNode>::share(this))));
}

Result<Ref<mem::MemoryObject>> FileNode::memory_object(std::string_view name) {
  if (!data_ && lower_) return lower_->memory_object(name);
  PagedData* own = TRY(data());
  String text = TRY(String::from(name));
  own->set_name(std::move(text));
  return Ref<mem::MemoryObject>(data_);
}

Result<size_t> FileNode::read(vfs::IoBuffer& buffer, u64 offset) {
  if (data_) return data_->read(buffer, offset);
  if (!lower_) return size_t{0};
  vfs::File* below = TRY(lower_file());
  return below->read(buffer, &offset);
}

Result<size_t> FileNode::write(vfs::IoBuffer& buffer, u64 offset) {
  if ((seals & (kSealWrite | kSealFutureWrite)) != 0) return Error(EPERM);
  if (offset + buffer.remaining() > size() && (seals & kSealGrow) != 0) return Error(EPERM);
  PagedData* own = TRY(data());
  size_t moved = TRY(own->write(buffer, offset));
  if (moved > 0) modified();
  return moved;
}

Result<void> FileNode::truncate(u64 size) {
  if (size > ~u64{0} >> 1) return Error(EINVAL);
  u64 now = this->size();
  if ((size < now && (seals & kSealShrink) != 0) || (size > now && (seals & kSealGrow) != 0)) return Error(EPERM);
  PagedData* own = TRY(data());
  TRY(own->truncate(size));
  modified();
  return {};
}

Result<void> FileNode::allocate(int mode, u64 offset, u64 size) {
  u64 end;
  if (size == 0 || !checked_add(offset, size, &end) || end > ~u64{0} >> 1) return Error(size == 0 ? EINVAL : EFBIG);
  if (mode != 0 && mode != kAllocateKeepSize && mode != (kAllocatePunchHole | kAllocateKeepSize)) return Error(EOPNOTSUPP);
  PagedData* own = TRY(data());
  if ((mode & kAllocatePunchHole) != 0) {
    if ((seals & (kSealWrite | kSealFutureWrite)) != 0) return Error(EPERM);
    TRY(own->punch_hole(offset, size));
  } else {
    bool grows = mode == 0 && end > own->size();
    if (grows && (seals & kSealGrow) != 0) return Error(EPERM);
    TRY(own->allocate(offset, size));
    if (grows) TRY(own->truncate(end));
  }
  modified();
  return {};
}

// --- SpecialNode ---------------------------------------------------------------------------------------------------

SpecialNode::SpecialNode(Ref<TmpfsVolume> volume, u32 mode, u64 special_device, Ref<vfs::Pipe> pipe)
    : Node(std::move(volume), mode), pipe_(std::move(pipe)) {
  stat_.special_device = special_device;
}

SpecialNode::~SpecialNode() = default;

Result<Ref<vfs::File>> SpecialNode::open(u32 flags) {
  if (pipe_) return vfs::open_fifo(pipe_, flags);
  if ((stat_.mode & vfs::kTypeMask) == vfs::kCharacterDevice) return open_character_device(stat_.special_device, flags);
  return Error(ENXIO);
}

// --- makers --------------------------------------------------------------------------------------------------------

Result<Ref<DirectoryNode>> make_tmpfs_root(u64 size_limit_bytes, u32 mode) {
  Ref<TmpfsVolume> volume = TRY(make_volume(size_limit_bytes));
  return make_ref<DirectoryNode>(std::move(volume), mode);
}

Result<Ref<vfs::Inode>> make_tmpfs(u64 size_limit_bytes, u32 root_mode) { return Ref<vfs::Inode>(TRY(make_tmpfs_root(size_limit_bytes, root_mode))); }

Result<Ref<vfs::Inode>> make_overlay(Ref<vfs::Inode> lower, Ref<vfs::Inode> upper) {
  vfs::FileSystemStat statistics = TRY(upper->file_system_stat());
  if (statistics.magic != kTmpfsMagic || !upper->is_directory() || !lower->is_directory()) return Error(EINVAL);
  // SAFETY: only Nodes have this magic, and a Node that is a directory is a DirectoryNode.
  auto& root = static_cast<DirectoryNode&>(*upper);
  root.become_overlay(std::move(lower));
  return upper;
}

}  // namespace husk::fs

// --- memfd ---------------------------------------------------------------------------------------------------------

namespace husk::vfs {

Result<Ref<File>> make_memfd(std::string_view name, u32 flags) {
  constexpr u32 kMemfdCloseOnExec = 1, kMemfdAllowSealing = 2;
  if ((flags & ~(kMemfdCloseOnExec | kMemfdAllowSealing)) != 0 || name.size() > 249) return Error(EINVAL);
  // All memfds live on one volume that only memory limits; it is made with the first one and stays.
  static constinit fs::TmpfsVolume* volume = nullptr;
  if (volume == nullptr) volume = TRY(fs::make_volume(mem::memory_statistics().total)).leak();
  Ref<fs::FileNode> node = TRY(make_ref<fs::FileNode>(Ref<fs::TmpfsVolume>::share(volume), kRegular | 0777));
  node->linked(-1);
  if ((flags & kMemfdAllowSealing) != 0) node->seals = 0;
  String text = TRY(String::from("/memfd:"));
  TRY(text.append(name));
  TRY(text.append(" (deleted)"));
  Ref<fs::TmpfsFile> file = TRY(make_ref<fs::TmpfsFile>(std::move(node)));
  file->become_memfd(std::move(text));
  file->flags = kOpenReadWrite;
  return Ref<File>(std::move(file));
}

Result<u32> memfd_seals(File& file) {
  if (file.kind != File::Kind::memfd) return Error(EINVAL);
  return static_cast<fs::TmpfsFile&>(file).node().seals;
}

Result<void> memfd_add_seals(File& file, u32 seals) {
  if (file.kind != File::Kind::memfd || (seals & ~fs::kSealsAll) != 0) return Error(EINVAL);
  fs::FileNode& node = static_cast<fs::TmpfsFile&>(file).node();
  if (!file.writable() || (node.seals & fs::kSealSeal) != 0) return Error(EPERM);
  if ((seals & fs::kSealWrite) != 0 && node.data_if_any() != nullptr && node.data_if_any()->observed()) return Error(EBUSY);
  node.seals |= seals;
  return {};
}

}  // namespace husk::vfs
