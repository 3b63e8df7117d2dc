// Maps a checked ELF image into an address space: text and data straight from the file's memory object, bss anonymous.
#pragma once
#undef linux

#include "kernel/linux/elf_image.h"
#include "kernel/mem/address_space.h"
#include "kernel/vfs/file.h"

namespace husk::linux {

// Reads a whole range of a file into kernel memory.
class FileSource : public ByteSource {
 public:
  explicit FileSource(vfs::File& file) : file_(file) {}
  Result<void> read_at(u64 offset, void* to, size_t size) override;

 private:
  vfs::File& file_;
};

// Gives the load bias: address in memory = address in the file + bias. `base` is where a position independent image should
// start (0: anywhere in the mmap area); others go where they want. The address space must be the current one.
Result<u64> map_elf(mem::AddressSpace& space, const ElfImage& image, Ref<mem::MemoryObject> object, u64 base);

}  // namespace husk::linux
