// Any bytes as an EROFS image: listing, looking up, reading and mapping must stay inside it.
#include <stdint.h>

#include <string>
#include <vector>

#include "kernel/fs/file_systems.h"
#include "kernel/mem/frames.h"
#include "kernel/time/time.h"
#include "kernel/vfs/open_flags.h"
#include "platform/fake/fake.h"

namespace {

using namespace husk;

struct Names final : vfs::DirectoryVisitor {
  std::vector<std::string> names;
  bool visit(const vfs::DirectoryEntry& entry, u64) override {
    names.emplace_back(entry.name);
    return names.size() < 64;
  }
};

void look_at(vfs::Inode& inode, int& budget, int depth) {
  if (--budget < 0) return;
  (void)inode.read_link().ok();
  auto file = inode.open(0);
  if (!file.ok()) return;
  std::vector<char> bytes(20000);
  vfs::IoSegment segment = vfs::IoBuffer::kernel_segment(bytes.data(), bytes.size());
  vfs::IoBuffer buffer({&segment, 1}, vfs::IoBuffer::Memory::kernel);
  u64 offset = 3;
  (void)(*file)->read(buffer, &offset).ok();
  if (auto object = (*file)->memory_object(); object.ok()) {
    for (u64 index : {0, 1, 7}) (void)(*object)->pages(index, 9, mem::Access::read).ok();
  }
  Names names;
  (void)(*file)->read_directory(names).ok();
  for (const std::string& name : names.names) {
    if (depth == 0 || name == "." || name == "..") continue;
    if (auto child = inode.lookup(name); child.ok()) look_at(**child, budget, depth - 1);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool ready = [] {
    platform::fake::reset();
    time::init(platform::fake::kTicksPerSecond, 0, 0, 0);
    mem::init_frames(platform::fake::boot_info());
    return true;
  }();
  (void)ready;
  auto root = fs::make_erofs({data, size}, PhysAddr{256 * kGiB});
  int budget = 300;
  if (root.ok()) look_at(**root, budget, 6);
  return 0;
}
