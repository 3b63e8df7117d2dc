// See vdso.h. vdso(7). The object is in the kernel's read-only data, whose frames are the image's; the clock page is ordinary RAM that
// processes map read-only and the kernel writes through the direct map.
#include "kernel/linux/vdso.h"

#include <elf.h>
#include <string.h>
#include <sys/mman.h>

#include "abi/image_format.h"
#include "kernel/mem/frames.h"
#include "kernel/time/time.h"

extern "C" const husk::u8 husk_vdso_start[], husk_vdso_end[];

namespace husk::linux {
namespace {

// As struct clock_page in vdso_program.c.
struct ClockPage {
  u32 sequence, pad;
  time::ClockParameters parameters;
};

class FixedPages final : public mem::MemoryObject {
 public:
  FixedPages(PhysAddr start, u64 pages, bool in_image, const char* name) : start_(start), pages_(pages), in_image_(in_image), name_(name) {}
  Result<mem::PageRun> pages(u64 index, u64 wanted, mem::Access) override {
    if (index >= pages_) return Error(ENXIO);
    u64 rest = pages_ - index;
    return mem::PageRun{start_ + index * kPageSize, wanted < rest ? wanted : rest};
  }
  bool immutable() const override { return in_image_; }
  const char* name() const override { return name_; }

 private:
  PhysAddr start_;
  u64 pages_;
  bool in_image_;
  const char* name_;
};

struct Vdso {
  Ref<mem::MemoryObject>* text = nullptr;
  Ref<mem::MemoryObject>* data = nullptr;
  ClockPage* clock = nullptr;
};
constinit Vdso vdso;

u64 text_size() { return static_cast<u64>(husk_vdso_end - husk_vdso_start); }

// Kernel parts that are neither writable nor relocated are used in place: their frames are the image's.
Result<PhysAddr> image_frame(const abi::BootInfo& info, const u8* address) {
  const auto& header = *reinterpret_cast<const abi::ImageHeader*>(info.image_base + abi::kImageHeaderOffset);
  const u64 offset = reinterpret_cast<u64>(address) - info.kernel_base;
  for (u32 i = 0; i < header.kernel_part_count && i < abi::kImagePartsMax; ++i) {
    const abi::ImagePart& part = header.kernel_parts[i];
    if ((part.flags & abi::kPartWrite) != 0 || part.relro != 0 || offset < part.virtual_offset) continue;
    if (offset - part.virtual_offset >= part.file_size) continue;
    return PhysAddr{info.image_physical + part.file_offset + (offset - part.virtual_offset)};
  }
  return Error(ENOENT);
}

Result<Ref<mem::MemoryObject>*> keep(Ref<mem::MemoryObject> object) {
  auto* kept = new (std::nothrow) Ref<mem::MemoryObject>(std::move(object));
  if (kept == nullptr) return Error(ENOMEM);
  return kept;
}

}  // namespace

Result<void> init_vdso(const abi::BootInfo& info) {
  PhysAddr text = TRY(image_frame(info, husk_vdso_start));
  PhysAddr frame = TRY(mem::allocate_frames(0, mem::Zeroed::yes));
  vdso.clock = reinterpret_cast<ClockPage*>(mem::direct(frame));
  Ref<FixedPages> object = TRY(make_ref<FixedPages>(text, text_size() / kPageSize, true, "[vdso]"));
  vdso.text = TRY(keep(std::move(object)));
  object = TRY(make_ref<FixedPages>(frame, 1, false, "[vvar]"));
  vdso.data = TRY(keep(std::move(object)));
  update_vdso_clock();
  return {};
}

void update_vdso_clock() {
  if (vdso.clock == nullptr) return;
  volatile u32& sequence = vdso.clock->sequence;
  sequence = sequence + 1;
  asm volatile("" : : : "memory");
  vdso.clock->parameters = time::clock_parameters();
  asm volatile("" : : : "memory");
  sequence = sequence + 1;
}

Result<u64> map_vdso(mem::AddressSpace& space) {
  mem::MapRequest request;
  request.length = kPageSize + text_size();
  request.protection = PROT_READ;
  u64 base = TRY(space.map(request));
  request.address = base;
  request.placement = mem::MapRequest::Placement::fixed;
  request.length = kPageSize;
  request.shared = true;
  request.protection_limit = PROT_READ;
  request.object = *vdso.data;
  request.populate = true;
  TRY(space.map(request));
  request.address = base + kPageSize;
  request.length = text_size();
  request.shared = false;
  request.protection = PROT_READ | PROT_EXEC;
  request.protection_limit = PROT_READ | PROT_EXEC;
  request.object = *vdso.text;
  TRY(space.map(request));
  return base + kPageSize;
}

u64 vdso_restart(u64 base) { return base + reinterpret_cast<const Elf64_Ehdr*>(husk_vdso_start)->e_entry; }

}  // namespace husk::linux
