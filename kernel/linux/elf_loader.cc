// See elf_loader.h.
#include "kernel/linux/elf_loader.h"

#include <sys/mman.h>

#include "kernel/mem/user_copy.h"

namespace husk::linux {
namespace {

using mem::MapRequest;

// Keeps the whole extent free for the image, so that its parts land side by side.
Result<u64> reserve(mem::AddressSpace& space, const ElfImage& image, u64 base) {
  u64 length = image.end - image.start;
  if (!image.position_independent) {
    if (image.start < kUserStart) return Error(EPERM);  // vm.mmap_min_addr
    return 0;
  }
  MapRequest request;
  request.length = length + (image.alignment - kPageSize);
  request.address = align_down(base, image.alignment);
  request.placement = base != 0 ? MapRequest::Placement::hint : MapRequest::Placement::anywhere;
  u64 address = TRY(space.map(request));
  u64 start = align_up(address, image.alignment);
  TRY(space.unmap(address, request.length));
  return start - align_down(image.start, image.alignment);
}

Result<void> map_file_part(mem::AddressSpace& space, const ElfSegment& segment, u64 bias, Ref<mem::MemoryObject> object) {
  MapRequest request;
  request.address = segment.page_start() + bias;
  request.length = segment.file_page_end() - segment.page_start();
  request.protection = segment.protection;
  request.placement = MapRequest::Placement::fixed;
  request.object = object;
  request.offset = align_down(segment.offset, kPageSize);
  TRY(space.map(request));
  u64 file_end = segment.address + segment.file_size + bias;
  if (segment.memory_size > segment.file_size && (segment.protection & PROT_WRITE) != 0 && file_end % kPageSize != 0) {
    TRY(mem::clear_user(file_end, align_up(file_end, kPageSize) - file_end));  // the page that file and bss share
  }
  return {};
}

Result<void> map_zero_part(mem::AddressSpace& space, const ElfSegment& segment, u64 bias) {
  u64 start = segment.file_size == 0 ? segment.page_start() : segment.file_page_end();
  if (segment.memory_page_end() <= start) return {};
  MapRequest request;
  request.address = start + bias;
  request.length = segment.memory_page_end() - start;
  request.protection = segment.protection;
  request.placement = MapRequest::Placement::fixed;
  TRY(space.map(request));
  return {};
}

}  // namespace

Result<void> FileSource::read_at(u64 offset, void* to, size_t size) {
  size_t done = 0;
  while (done < size) {
    vfs::IoSegment segment = vfs::IoBuffer::kernel_segment(static_cast<u8*>(to) + done, size - done);
    vfs::IoBuffer buffer({&segment, 1}, vfs::IoBuffer::Memory::kernel);
    u64 position = offset + done;
    size_t got = TRY(file_.read(buffer, &position));
    if (got == 0) return Error(ENOEXEC);
    done += got;
  }
  return {};
}

Result<u64> map_elf(mem::AddressSpace& space, const ElfImage& image, Ref<mem::MemoryObject> object, u64 base) {
  u64 bias = TRY(reserve(space, image, base));
  for (const ElfSegment& segment : image.segments) {
    if (segment.file_size != 0) TRY(map_file_part(space, segment, bias, object));
    TRY(map_zero_part(space, segment, bias));
  }
  return bias;
}

}  // namespace husk::linux
