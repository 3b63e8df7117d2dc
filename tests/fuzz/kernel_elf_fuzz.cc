// The kernel's ELF reader on arbitrary bytes: what it accepts must be safe to map.
#include <string.h>

#include "base/panic.h"
#include "kernel/linux/elf_image.h"

namespace {

struct Bytes : husk::linux::ByteSource {
  Bytes(const uint8_t* d, size_t s) : data(d), size(s) {}
  husk::Result<void> read_at(husk::u64 offset, void* to, size_t wanted) override {
    if (offset > size || wanted > size - offset) return husk::Error(ENOEXEC);
    if (wanted != 0) memcpy(to, data + offset, wanted);
    return {};
  }
  const uint8_t* data;
  size_t size;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes bytes(data, size);
  auto image = husk::linux::read_elf(bytes);
  if (!image.ok()) return 0;
  HUSK_ASSERT(image->start <= image->end && image->end <= husk::kUserEnd + husk::kPageSize);
  for (const auto& segment : image->segments) {
    HUSK_ASSERT(segment.page_start() >= image->start && segment.memory_page_end() <= image->end);
    HUSK_ASSERT(segment.file_size <= segment.memory_size);
    HUSK_ASSERT((segment.address - segment.offset) % husk::kPageSize == 0);
  }
  return 0;
}
