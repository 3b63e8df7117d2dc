// The husk image: one ELF64 file that QEMU, Firecracker, Cloud Hypervisor, Xen and the husk monitor boot.
//
// File layout, every part at a multiple of 4096:
//   0        ELF header, two program headers: PT_LOAD of the whole file at kImageLoadAddress, PT_NOTE with
//            XEN_ELFNOTE_PHYS32_ENTRY (the nub's 32-bit entry)
//   4096     ImageHeader (this struct), then the relocation bitmap, see below
//   ...      nub text+rodata, nub data   (as linked for kNubBase; see Part)
//   ...      kernel text, rodata, relro, data (position independent)
//   ...      default boot configuration (boot_config.h)
//   ...      manifest (JSON, UTF-8, for people and host tools; the kernel does not read it)
//   ...      root file system (EROFS, aligned to 2 MiB if it is larger than that)
// Same input, same bytes. All integers little-endian. A loader must check every offset and size against the file's.
#pragma once

#include "base/types.h"

namespace husk::abi {

constexpr u64 kImageMagic = 0x31474d494b535548;  // "HUSKIMG1"
constexpr u32 kImageVersion = 4;
constexpr u64 kImageHeaderOffset = 4096;
constexpr u64 kImageLoadAddress = 0x200000;            // physical, for loaders that copy (PVH)
constexpr u64 kNubBase = 0xffffffff80000000;           // virtual address the nub is linked at
constexpr u64 kMonitorImageAddress = u64{256} * kGiB;  // physical, where the husk monitor maps the file

enum PartFlags : u32 { kPartExecute = 1, kPartWrite = 2, kPartRead = 4 };  // as ELF's PF_X, PF_W, PF_R

struct ImagePart {
  u64 file_offset;
  u64 virtual_offset;  // from kNubBase (nub) or from the kernel's random base (kernel)
  u64 file_size;
  u64 memory_size;  // >= file_size; the rest is zero
  u32 flags;        // PartFlags; writable and relro parts are copied to RAM, the others used in place
  u32 relro;        // 1: copied and relocated, then mapped read-only
};
static_assert(sizeof(ImagePart) == 40);

constexpr u32 kImagePartsMax = 6;

enum ImageFlags : u32 {
  kImageJit = 1,  // the program may create executable memory (W^X is kept unless it also asks for W+X)
};

struct ImageHeader {
  u64 magic;
  u32 version;
  u32 flags;
  u64 file_size;
  u32 nub_part_count;
  u32 kernel_part_count;
  ImagePart nub_parts[kImagePartsMax];
  ImagePart kernel_parts[kImagePartsMax];
  // Offsets from the kernel's base.
  u64 kernel_start;  // void kernel_start(const BootInfo*) in ring 3
  u64 kernel_upcall_entry;
  u64 kernel_trapped_syscall_entry;
  u64 kernel_nub_call_site;  // address behind the one syscall instruction that makes nub calls
  u64 kernel_size;           // extent of all parts in memory
  // Offsets from kNubBase.
  u64 nub_size;
  u64 nub_entry_pvh;     // 32-bit entry, also physical: kImageLoadAddress + file offset
  u64 nub_syscall_stub;  // what LSTAR points at, before per-vCPU aliasing
  u64 nub_vector_stubs;  // kNubVectorStubSize bytes for each of HUSK_VECTOR_COUNT vectors
  u64 nub_state;         // struct NubState in nub data (machine_state.h)
  // R_X86_64_RELATIVE as a bitmap: to the u64 at relocated_start + 8 n from the kernel's base the base is added if bit n % 64 of
  // u64 n / 64 is set. Bits for words outside of writable and relro parts are without effect.
  u64 relocations_offset;
  u64 relocation_words;  // u64s in the bitmap
  u64 relocated_start;
  u64 manifest_offset, manifest_size;
  u64 config_offset, config_size;
  u64 rootfs_offset, rootfs_size;
  u8 nub_sha256[32], kernel_sha256[32], manifest_sha256[32], rootfs_sha256[32];
  u64 start_checksum;  // XXH3-64 of the file up to the end of the boot configuration, itself taken as zero: finds damage, not malice, at each start
};
static_assert(sizeof(ImageHeader) <= 4096);

constexpr u64 kNubVectorStubSize = 16;

}  // namespace husk::abi
