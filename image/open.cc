// Checks of image files; see open.h.
#include "image/open.h"

#include <fcntl.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace husk::image {

void Image::fail(const std::string& what) const { throw Error(name_ + ": " + what); }

bool Image::looks_like_image(Bytes bytes) {
  return bytes.size() >= 4 &&
         memcmp(bytes.data(),
                "\x7f"
                "ELF",
                4) == 0 &&
         read_at<u64>(bytes, abi::kImageHeaderOffset) == abi::kImageMagic;
}

bool Image::looks_like_image(const std::string& path) {
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  std::vector<u8> head(abi::kImageHeaderOffset + sizeof(u64));
  return file.valid() && pread(file.get(), head.data(), head.size(), 0) == static_cast<ssize_t>(head.size()) && looks_like_image(head);
}

u64 start_checksum(Bytes file, const abi::ImageHeader& header) {
  constexpr u64 kAt = abi::kImageHeaderOffset + offsetof(abi::ImageHeader, start_checksum), kBehind = kAt + sizeof(u64), kZero = 0;
  auto end = slice(file, header.config_offset, header.config_size);
  if (!end || header.config_offset < kBehind) throw Error("the boot configuration lies outside the image");
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  XXH3_64bits_update(&state, file.data(), kAt);
  XXH3_64bits_update(&state, &kZero, sizeof(kZero));
  XXH3_64bits_update(&state, file.data() + kBehind, header.config_offset + header.config_size - kBehind);
  return XXH3_64bits_digest(&state);
}

Image Image::open(const std::string& path, Verify verify) {
  MappedFile file = MappedFile::open(path);
  Image image = from_bytes(file.bytes(), path, verify);
  image.file_.emplace(std::move(file));
  return image;
}

Image Image::from_bytes(Bytes bytes, std::string name, Verify verify) {
  Image image(bytes, std::move(name));
  image.check_layout();
  image.check_addresses();
  image.check_relocations();
  if (verify == Verify::layout) return image;
  if (start_checksum(bytes, image.header_) != image.header_.start_checksum) {
    image.fail("is damaged: the checksum of its header, nub, kernel and boot configuration is wrong; build the image again");
  }
  if (verify == Verify::whole) image.check_digests();
  return image;
}

void Image::check_digests() const {
  auto parts_digest = [&](const abi::ImagePart* parts, u32 count) {
    Sha256 hash;
    for (u32 i = 0; i < count; ++i) hash.add(part(parts[i].file_offset, parts[i].file_size));
    return hash.finish();
  };
  auto check = [&](const char* what, const Digest& actual, const u8* expected) {
    if (memcmp(actual.data(), expected, actual.size()) != 0) {
      fail(std::string("is damaged: the digest of its ") + what + " is wrong; build the image again");
    }
  };
  check("nub", parts_digest(header_.nub_parts, header_.nub_part_count), header_.nub_sha256);
  check("kernel", parts_digest(header_.kernel_parts, header_.kernel_part_count), header_.kernel_sha256);
  check("manifest", sha256(part(header_.manifest_offset, header_.manifest_size)), header_.manifest_sha256);
  check("root file system", sha256(rootfs()), header_.rootfs_sha256);
}

void Image::check_range(const char* what, u64 offset, u64 size, u64 alignment) const {
  if (!is_aligned(offset, alignment) || !slice(bytes_, offset, size)) {
    fail(std::string("is damaged: its ") + what + " lies outside the file; build the image again");
  }
}

void Image::check_layout() {
  if (!looks_like_image(bytes_)) fail("is not a husk image; `husk build PROGRAM -o FILE` makes one");
  auto header = read_at<abi::ImageHeader>(bytes_, abi::kImageHeaderOffset);
  if (!header) fail("is truncated; build the image again");
  header_ = *header;
  if (header_.version != abi::kImageVersion) {
    fail("has image version " + std::to_string(header_.version) + ", this husk reads version " + std::to_string(abi::kImageVersion) +
         "; build the image again");
  }
  if (header_.file_size != bytes_.size()) {
    fail("is truncated or extended: it says " + std::to_string(header_.file_size) + " bytes and has " + std::to_string(bytes_.size()) +
         "; build the image again");
  }
  check_parts("nub", header_.nub_parts, header_.nub_part_count, header_.nub_size);
  check_parts("kernel", header_.kernel_parts, header_.kernel_part_count, header_.kernel_size);
  check_range("manifest", header_.manifest_offset, header_.manifest_size, kPageSize);
  check_range("boot configuration", header_.config_offset, header_.config_size, kPageSize);
  check_range("root file system", header_.rootfs_offset, header_.rootfs_size, kPageSize);
}

void Image::check_parts(const char* what, const abi::ImagePart* parts, u32 count, u64 extent) const {
  bool good = count > 0 && count <= abi::kImagePartsMax && extent <= kGiB;
  u64 end = 0;
  for (u32 i = 0; good && i < count; ++i) {
    const auto& part = parts[i];
    u32 both = abi::kPartWrite | abi::kPartExecute;
    good = part.memory_size >= part.file_size && part.memory_size <= extent && part.virtual_offset <= extent - part.memory_size &&
           part.virtual_offset >= end && is_aligned(part.virtual_offset, kPageSize) && part.flags <= 7 && (part.flags & both) != both &&
           part.relro <= 1;
    if (!good) break;
    end = align_up(part.virtual_offset + part.memory_size, kPageSize);
    check_range(what, part.file_offset, part.file_size, kPageSize);
  }
  if (!good) fail(std::string("is damaged: its ") + what + " has impossible parts; build the image again");
}

void Image::check_addresses() const {
  bool kernel = header_.kernel_start < header_.kernel_size && header_.kernel_upcall_entry < header_.kernel_size &&
                header_.kernel_trapped_syscall_entry < header_.kernel_size && header_.kernel_nub_call_site < header_.kernel_size;
  bool nub = header_.nub_entry_pvh < header_.nub_size && header_.nub_syscall_stub < header_.nub_size && header_.nub_vector_stubs < header_.nub_size &&
             header_.nub_state < header_.nub_size;
  if (!kernel || !nub) fail("is damaged: an entry address lies outside its part; build the image again");
}

void Image::check_relocations() const {
  if (header_.relocation_words > kGiB || !is_aligned(header_.relocated_start, sizeof(u64))) {
    fail("is damaged: impossible relocations; build the image again");
  }
  check_range("relocation bitmap", header_.relocations_offset, header_.relocation_words * sizeof(u64), sizeof(u64));
}

Manifest Image::manifest() const { return manifest_from_json(part(header_.manifest_offset, header_.manifest_size), name_); }

}  // namespace husk::image
