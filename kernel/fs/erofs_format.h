// The on-disk layout of EROFS, as far as uncompressed images use it; Linux Documentation/filesystems/erofs.rst. Little endian.
#pragma once

#include "base/types.h"

namespace husk::fs::erofs {

constexpr u64 kSuperblockOffset = 1024;
constexpr u32 kMagic = 0xe0f5e1e2;
constexpr u32 kBlockBits = 12;
constexpr u64 kInodeSlot = 32;
constexpr u32 kIncompatZeroPadding = 1, kIncompatChunkedFiles = 4;  // of no meaning without such files

struct __attribute__((packed)) Superblock {
  u32 magic, checksum, feature_compat;
  u8 block_bits, extension_slots;
  u16 root_nid;
  u64 inodes, build_time;
  u32 build_time_ns, blocks, meta_block, xattr_block;
  u8 uuid[16], volume_name[16];
  u32 feature_incompat;
  u8 rest[44];
};
static_assert(sizeof(Superblock) == 128);

enum Layout : u16 { kFlatPlain = 0, kCompressedFull = 1, kFlatInline = 2, kCompressedCompact = 3, kChunked = 4 };

struct __attribute__((packed)) CompactInode {
  u16 format;  // bit 0: extended; bits 1..3: Layout
  u16 xattr_count, mode, links;
  u32 size, reserved, start_block_or_device, inode;
  u16 uid, gid;
  u32 reserved2;
};
static_assert(sizeof(CompactInode) == 32);

struct __attribute__((packed)) ExtendedInode {
  u16 format, xattr_count, mode, reserved;
  u64 size;
  u32 start_block_or_device, inode, uid, gid;
  u64 modified;
  u32 modified_ns, links;
  u8 reserved2[16];
};
static_assert(sizeof(ExtendedInode) == 64);

// A directory block: entries, then names; the first name's offset tells the number of entries. Sorted by name.
struct __attribute__((packed)) DirectoryRecord {
  u64 nid;
  u16 name_offset;
  u8 type;  // 1 file, 2 directory, 3 character, 4 block, 5 FIFO, 6 socket, 7 symbolic link
  u8 reserved;
};
static_assert(sizeof(DirectoryRecord) == 12);

}  // namespace husk::fs::erofs
