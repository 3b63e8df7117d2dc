#include <algorithm>

#include "kernel/fs/tmpfs.h"
#include "kernel/vfs/open_flags.h"
#include "kernel/vfs/pipe.h"

namespace husk::fs {

namespace {

constexpr u32 kRenameExchange = 2;

class TmpfsDirectoryFile final : public InodeFile {
 public:
  explicit TmpfsDirectoryFile(Ref<DirectoryNode> node) : InodeFile(node), node_(std::move(node)) {}
  Result<void> read_directory(vfs::DirectoryVisitor& visitor) override { return node_->list(position, visitor); }

 private:
  bool seeks_by_cookie() const override { return true; }
  Ref<DirectoryNode> node_;
};

}  // namespace

DirectoryNode::DirectoryNode(Ref<TmpfsVolume> volume, u32 mode)
    : Node(std::move(volume), vfs::kDirectoryType | (mode & 07777)), parent_number_(number()) {
  stat_.links = 2;
}

// --- the table of names --------------------------------------------------------------------------------------------

u32 DirectoryNode::hash(std::string_view name) {
  u32 value = 2166136261;
  for (char c : name) value = (value ^ static_cast<u8>(c)) * 16777619;  // FNV-1a
  return value ^ value >> 15;
}

DirectoryNode::Slot* DirectoryNode::find(std::string_view name) {
  if (index_.empty()) return nullptr;
  u32 wanted = hash(name);
  for (size_t at = wanted;; ++at) {
    u32 number = index_[at & (index_.size() - 1)];
    if (number == 0) return nullptr;
    Slot& slot = slots_[number - 1];
    if (slot.state != Slot::State::dead && slot.hash == wanted && slot.name.view() == name) return &slot;
  }
}

// Drops dead slots, and keeps the index at most half full.
Result<void> DirectoryNode::make_room() {
  size_t live = slots_.size() - dead_;
  if ((slots_.size() + 1) * 2 <= index_.size()) return {};
  size_t size = 8;
  while (size < (live + 1) * 4) size *= 2;
  Vec<u32> index;
  TRY(index.resize(size));
  size_t kept = 0;
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].state == Slot::State::dead) continue;
    if (kept != i) slots_[kept] = std::move(slots_[i]);
    size_t at = slots_[kept].hash;
    while (index[at & (size - 1)] != 0) ++at;
    index[at & (size - 1)] = static_cast<u32>(++kept);
  }
  while (slots_.size() > kept) slots_.pop_back();
  dead_ = 0;
  index_ = std::move(index);
  return {};
}

Result<void> DirectoryNode::push(std::string_view name, Ref<Node> node, Slot::State state, bool from_lower) {
  TRY(make_room());
  String text = TRY(String::from(name));
  TRY(slots_.push_back(Slot{std::move(text), std::move(node), next_cookie_, hash(name), state, from_lower}));
  ++next_cookie_;
  size_t at = slots_.back().hash;
  while (index_[at & (index_.size() - 1)] != 0) ++at;
  index_[at & (index_.size() - 1)] = static_cast<u32>(slots_.size());
  return {};
}

Result<DirectoryNode::Slot*> DirectoryNode::find_live(std::string_view name) {
  Slot* slot = find(name);
  if (slot == nullptr && lower_) {
    Ref<vfs::Inode> below = TRY(lower_->lookup(name));
    Ref<Node> node = TRY(wrap(std::move(below)));
    TRY(push(name, std::move(node), Slot::State::live, true));
    slot = &slots_.back();
  }
  if (slot == nullptr || slot->state != Slot::State::live) return Error(ENOENT);
  return slot;
}

Result<void> DirectoryNode::set(std::string_view name, Ref<Node> node) {
  Slot* slot = find(name);
  if (slot != nullptr && slot->state == Slot::State::live && !slot->from_lower) {
    slot->node = std::move(node);
    return {};
  }
  // A name that was listed with the lower directory gets a place of its own.
  TRY(push(name, std::move(node), Slot::State::live, false));
  slot = find(name);  // the older of two
  if (slot->cookie != next_cookie_ - 1) {
    slot->state = Slot::State::dead;
    slot->node = nullptr;
    ++dead_;
  }
  return {};
}

Result<void> DirectoryNode::remove(std::string_view name) {
  Slot* slot = find(name);
  HUSK_ASSERT(slot != nullptr && slot->state == Slot::State::live);
  bool hides = slot->from_lower;
  if (!hides && lower_) hides = lower_->lookup(name).ok();
  slot->node = nullptr;
  slot->state = hides ? Slot::State::whiteout : Slot::State::dead;
  slot->from_lower = hides;
  if (!hides) ++dead_;
  modified();
  return {};
}

// --- the lower directory -------------------------------------------------------------------------------------------

Result<Ref<Node>> DirectoryNode::wrap(Ref<vfs::Inode> lower) {
  vfs::Stat below = lower->stat();
  Ref<Node> result;
  switch (below.mode & vfs::kTypeMask) {
    case vfs::kDirectoryType: {
      Ref<DirectoryNode> node = TRY(make_ref<DirectoryNode>(volume_, below.mode));
      node->lower_ = std::move(lower);
      node->parent_number_ = number();
      result = std::move(node);
      break;
    }
    case vfs::kRegular: {
      Ref<FileNode> node = TRY(make_ref<FileNode>(volume_, below.mode));
      node->set_lower(std::move(lower));
      result = std::move(node);
      break;
    }
    case vfs::kSymlink: {
      String target = TRY(lower->read_link());
      result = TRY(make_ref<SymlinkNode>(volume_, std::move(target)));
      break;
    }
    default: {
      Ref<vfs::Pipe> pipe;
      if ((below.mode & vfs::kTypeMask) == vfs::kFifo) pipe = TRY(vfs::make_fifo());
      result = TRY(make_ref<SpecialNode>(volume_, below.mode, below.special_device, std::move(pipe)));
    }
  }
  result->take_from_lower(below);
  return result;
}

// Passes on what the lower directory lists and nothing here hides or replaces.
class DirectoryNode::LowerFilter final : public vfs::DirectoryVisitor {
 public:
  LowerFilter(DirectoryNode& directory, vfs::DirectoryVisitor& out, u64& position) : directory_(directory), out_(out), position_(position) {}
  bool visit(const vfs::DirectoryEntry& entry, u64 next_offset) override {
    Slot* slot = directory_.find(entry.name);
    bool shown = entry.name != "." && entry.name != ".." && (slot == nullptr || (slot->state == Slot::State::live && slot->from_lower));
    if (shown && !out_.visit(entry, kLowerBase + next_offset)) return false;
    position_ = kLowerBase + next_offset;
    return true;
  }

 private:
  DirectoryNode& directory_;
  vfs::DirectoryVisitor& out_;
  u64& position_;
};

Result<void> DirectoryNode::list(u64& position, vfs::DirectoryVisitor& visitor) {
  if (stat_.links == 0) return Error(ENOENT);
  constexpr u8 kDirectoryEntry = directory_entry_type(vfs::kDirectoryType);
  if (position == 0) {
    if (!visitor.visit({number(), kDirectoryEntry, "."}, 1)) return {};
    position = 1;
  }
  if (position == 1) {
    if (!visitor.visit({parent_number_, kDirectoryEntry, ".."}, kFirstCookie)) return {};
    position = kFirstCookie;
  }
  if (position < kLowerBase) {
    auto behind = [](const Slot& slot, u64 cookie) { return slot.cookie < cookie; };
    for (Slot* slot = std::lower_bound(slots_.begin(), slots_.end(), position, behind); slot != slots_.end(); ++slot) {
      if (slot->state != Slot::State::live || slot->from_lower) continue;
      u8 type = vfs::directory_entry_type(slot->node->stat_.mode);
      if (!visitor.visit({slot->node->number(), type, slot->name}, slot->cookie + 1)) return {};
      position = slot->cookie + 1;
    }
  }
  if (!lower_) return {};
  Ref<vfs::File> file = TRY(lower_->open(vfs::kOpenDirectory));
  file->position = position < kLowerBase ? 0 : position - kLowerBase;
  LowerFilter filter(*this, visitor, position);
  return file->read_directory(filter);
}

Result<bool> DirectoryNode::is_empty() {
  struct AnyName final : vfs::DirectoryVisitor {
    bool found = false;
    bool visit(const vfs::DirectoryEntry& entry, u64) override {
      if (entry.name == "." || entry.name == "..") return true;
      found = true;
      return false;
    }
  } any;
  u64 position = 0;
  TRY(list(position, any));
  return !any.found;
}

// --- operations ----------------------------------------------------------------------------------------------------

Result<Ref<vfs::Inode>> DirectoryNode::lookup(std::string_view name) { return Ref<vfs::Inode>(TRY(find_live(name))->node); }

void DirectoryNode::account(Node& node, int by) {
  if ((node.stat_.mode & vfs::kTypeMask) == vfs::kDirectoryType) stat_.links += static_cast<u32>(by);
}

Result<void> DirectoryNode::add(std::string_view name, Ref<Node> node) {
  if (stat_.links == 0) return Error(ENOENT);
  if (find_live(name).ok()) return Error(EEXIST);
  if ((node->stat_.mode & vfs::kTypeMask) == vfs::kDirectoryType) {
    static_cast<DirectoryNode&>(*node).parent_number_ = number();
  }
  Node& added = *node;
  TRY(set(name, std::move(node)));
  account(added, 1);
  modified();
  return {};
}

Result<Ref<vfs::Inode>> DirectoryNode::create(std::string_view name, u32 mode, u64 special_device) {
  Ref<Node> node;
  switch (mode & vfs::kTypeMask) {
    case vfs::kRegular: node = TRY(make_ref<FileNode>(volume_, mode)); break;
    case vfs::kDirectoryType: node = TRY(make_ref<DirectoryNode>(volume_, mode)); break;
    case vfs::kFifo: {
      Ref<vfs::Pipe> pipe = TRY(vfs::make_fifo());
      node = TRY(make_ref<SpecialNode>(volume_, mode, 0, std::move(pipe)));
      break;
    }
    case vfs::kSocketType: node = TRY(make_ref<SpecialNode>(volume_, mode, 0, nullptr)); break;
    case vfs::kCharacterDevice:
    case vfs::kBlockDevice: node = TRY(make_ref<SpecialNode>(volume_, mode, special_device, nullptr)); break;
    default: return Error(EINVAL);
  }
  TRY(add(name, node));
  return Ref<vfs::Inode>(std::move(node));
}

Result<Ref<vfs::Inode>> DirectoryNode::create_symlink(std::string_view name, std::string_view target) {
  String text = TRY(String::from(target));
  Ref<Node> node = TRY(make_ref<SymlinkNode>(volume_, std::move(text)));
  TRY(add(name, node));
  return Ref<vfs::Inode>(std::move(node));
}

Result<Ref<vfs::Inode>> DirectoryNode::create_unnamed(u32 mode) {
  Ref<FileNode> node = TRY(make_ref<FileNode>(volume_, mode));
  node->linked(-1);
  return Ref<vfs::Inode>(std::move(node));
}

Result<void> DirectoryNode::link(std::string_view name, vfs::Inode& target) {
  // SAFETY: every inode with this device number is a Node of this volume.
  if (target.stat().device != volume_->device) return Error(EXDEV);
  Node& node = static_cast<Node&>(target);
  TRY(add(name, Ref<Node>::share(&node)));
  node.linked(1);
  return {};
}

Result<void> DirectoryNode::unlink(std::string_view name, bool directory) {
  Ref<Node> node = TRY(find_live(name))->node;
  bool is_directory = (node->stat_.mode & vfs::kTypeMask) == vfs::kDirectoryType;
  if (directory && !is_directory) return Error(ENOTDIR);
  if (!directory && is_directory) return Error(EISDIR);
  if (directory && !TRY(static_cast<DirectoryNode&>(*node).is_empty())) return Error(ENOTEMPTY);
  TRY(remove(name));
  account(*node, -1);
  node->linked(directory ? -static_cast<int>(node->stat_.links) : -1);
  return {};
}

Result<void> DirectoryNode::can_replace(Node& moved, Node& replaced) {
  bool directory = (moved.stat_.mode & vfs::kTypeMask) == vfs::kDirectoryType;
  bool onto_directory = (replaced.stat_.mode & vfs::kTypeMask) == vfs::kDirectoryType;
  if (directory && !onto_directory) return Error(ENOTDIR);
  if (!directory && onto_directory) return Error(EISDIR);
  if (directory && !TRY(static_cast<DirectoryNode&>(replaced).is_empty())) return Error(ENOTEMPTY);
  return {};
}

Result<void> DirectoryNode::rename(std::string_view name, vfs::Inode& new_directory, std::string_view new_name, u32 flags) {
  // SAFETY: every inode with this device number is a Node of this volume.
  if (new_directory.stat().device != volume_->device || !new_directory.is_directory()) return Error(EXDEV);
  DirectoryNode& to = static_cast<DirectoryNode&>(new_directory);
  if (to.stat_.links == 0) return Error(ENOENT);
  Ref<Node> moved = TRY(find_live(name))->node;
  Ref<Node> replaced;
  if (Result<Slot*> slot = to.find_live(new_name); slot.ok()) replaced = (*slot)->node;
  if (replaced == moved) return {};
  bool exchange = (flags & kRenameExchange) != 0;
  if (exchange && !replaced) return Error(ENOENT);
  if (!exchange && replaced) TRY(can_replace(*moved, *replaced));

  TRY(to.set(new_name, moved));
  if (exchange) {
    TRY(set(name, replaced));
  } else {
    TRY(remove(name));
  }
  auto settle = [](Node& node, DirectoryNode& old_parent, DirectoryNode& parent) {
    old_parent.account(node, -1);
    parent.account(node, 1);
    if ((node.stat_.mode & vfs::kTypeMask) == vfs::kDirectoryType) {
      static_cast<DirectoryNode&>(node).parent_number_ = parent.number();
    }
    node.changed();
  };
  settle(*moved, *this, to);
  if (exchange) {
    settle(*replaced, to, *this);
  } else if (replaced) {
    to.account(*replaced, -1);
    bool directory = (replaced->stat_.mode & vfs::kTypeMask) == vfs::kDirectoryType;
    replaced->linked(directory ? -static_cast<int>(replaced->stat_.links) : -1);
  }
  modified();
  to.modified();
  return {};
}

Result<Ref<vfs::File>> DirectoryNode::open(u32) { return Ref<vfs::File>(TRY(make_ref<TmpfsDirectoryFile>(Ref<DirectoryNode>::share(this)))); }

}  // namespace husk::fs
