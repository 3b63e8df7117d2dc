// See cli/image_files.h.
#include "cli/image_files.h"

#include <string.h>
#include <sys/stat.h>

#include <string>

namespace husk::cli {
namespace {

constexpr u64 kSuperOffset = 1024;
constexpr u32 kMagic = 0xe0f5e1e2;
constexpr u64 kFileMax = 512 * kMiB;
constexpr u16 kExtended = 1, kLayoutPlain = 0, kLayoutInline = 2;

}  // namespace

template <typename T>
std::optional<T> ImageFiles::at(u64 offset) const {
  if (offset > root_.size() || root_.size() - offset < sizeof(T)) return std::nullopt;
  T value;
  memcpy(&value, root_.data() + offset, sizeof(T));
  return value;
}

ImageFiles::ImageFiles(std::span<const u8> root) : root_(root) {
  auto magic = at<u32>(kSuperOffset);
  auto block_bits = at<u8>(kSuperOffset + 12);
  auto root_nid = at<u16>(kSuperOffset + 14);
  auto meta_block = at<u32>(kSuperOffset + 40);
  if (!meta_block || *magic != kMagic || *block_bits < 9 || *block_bits > 16) return;
  block_size_ = u64{1} << *block_bits;
  meta_offset_ = u64{*meta_block} << *block_bits;
  root_nid_ = *root_nid;
}

std::optional<ImageFiles::Inode> ImageFiles::inode(u64 nid) const {
  u64 offset;
  if (block_size_ == 0 || !checked_mul(nid, u64{32}, &offset) || !checked_add(offset, meta_offset_, &offset)) return std::nullopt;
  auto format = at<u16>(offset);
  auto xattr_count = at<u16>(offset + 2);
  auto mode = at<u16>(offset + 4);
  bool extended = format && (*format & 1) == kExtended;
  auto size_short = at<u32>(offset + 8);
  auto size_long = at<u64>(offset + 8);
  auto block = at<u32>(offset + 16);
  if (!size_long || !block) return std::nullopt;
  Inode result{*format, *mode, extended ? *size_long : u64{*size_short}, 0, u64{*block} * block_size_};
  u64 xattr_size = *xattr_count == 0 ? 0 : 12 + u64{4} * (*xattr_count - u64{1});
  result.inline_offset = offset + (extended ? 64 : 32) + xattr_size;
  return result;
}

std::optional<std::vector<u8>> ImageFiles::contents(const Inode& inode) const {
  u16 layout = (inode.format >> 1) & 7;
  if (inode.size > kFileMax || inode.size > root_.size()) return std::nullopt;
  u64 tail = layout == kLayoutInline ? inode.size % block_size_ : 0;
  u64 body = inode.size - tail;
  if (layout != kLayoutPlain && layout != kLayoutInline) return std::nullopt;
  bool sound = (body == 0 || (inode.data_offset <= root_.size() && root_.size() - inode.data_offset >= body)) &&
               inode.inline_offset <= root_.size() && root_.size() - inode.inline_offset >= tail;
  if (!sound) return std::nullopt;
  std::vector<u8> out;
  if (body != 0)
    out.assign(root_.begin() + static_cast<ptrdiff_t>(inode.data_offset), root_.begin() + static_cast<ptrdiff_t>(inode.data_offset + body));
  out.insert(out.end(), root_.begin() + static_cast<ptrdiff_t>(inode.inline_offset),
             root_.begin() + static_cast<ptrdiff_t>(inode.inline_offset + tail));
  return out;
}

std::optional<u64> ImageFiles::lookup(const Inode& directory, std::string_view name) const {
  auto bytes = contents(directory);
  if (!bytes) return std::nullopt;
  for (u64 start = 0; start < bytes->size(); start += block_size_) {
    u64 size = std::min<u64>(block_size_, bytes->size() - start);
    const u8* block = bytes->data() + start;
    auto name_offset = [&](u64 index) {
      u16 value;
      memcpy(&value, block + index * 12 + 8, sizeof(value));
      return u64{value};
    };
    if (size < 12) return std::nullopt;
    u64 count = name_offset(0) / 12;
    if (count * 12 > size) return std::nullopt;
    for (u64 i = 0; i < count; ++i) {
      u64 from = name_offset(i), to = i + 1 < count ? name_offset(i + 1) : size;
      if (from > to || to > size) return std::nullopt;
      std::string_view entry(reinterpret_cast<const char*>(block + from), to - from);
      if (entry.substr(0, entry.find('\0')) != name) continue;
      u64 nid;
      memcpy(&nid, block + i * 12, sizeof(nid));
      return nid;
    }
  }
  return std::nullopt;
}

std::optional<ImageFiles::Inode> ImageFiles::walk(std::string_view path, int links_left) const {
  auto current = inode(root_nid_);
  std::string done;
  while (current && !path.empty()) {
    size_t slash = path.find('/');
    std::string_view name = path.substr(0, slash);
    path = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
    if (name.empty() || name == ".") continue;
    if (!S_ISDIR(current->mode)) return std::nullopt;
    auto nid = lookup(*current, name);
    if (!nid) return std::nullopt;
    current = inode(*nid);
    if (current && S_ISLNK(current->mode)) {
      auto target = contents(*current);
      if (!target || links_left == 0) return std::nullopt;
      std::string next(target->begin(), target->end());
      if (next.empty() || next[0] != '/') next = done + "/" + next;
      return walk(next + "/" + std::string(path), links_left - 1);
    }
    done += "/" + std::string(name);
  }
  return current;
}

std::optional<std::vector<u8>> ImageFiles::read(std::string_view path) const {
  auto found = walk(path, 8);
  if (!found || !S_ISREG(found->mode)) return std::nullopt;
  return contents(*found);
}

}  // namespace husk::cli
