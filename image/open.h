// Opens an image and checks everything that a reader relies on. For `husk run`, `husk inspect`, and the fuzzer.
#pragma once

#include <string>

#include "abi/image_format.h"
#include "image/file.h"
#include "image/manifest/manifest.h"

namespace husk::image {

enum class Verify {
  layout,  // header, offsets, boot configuration, relocation table
  start,   // and start_checksum: all but the files in the image; about half a megabyte
  whole,   // and the digests of every part: reads the whole file
};

// What start_checksum has to be. Throws Error if the boot configuration lies outside the file.
u64 start_checksum(Bytes file, const abi::ImageHeader& header);

class Image {
 public:
  // Throws Error: what is wrong with the file, and what to do.
  static Image open(const std::string& path, Verify verify);
  // `name` is for messages; the bytes must outlive the image. Alignment of the bytes does not matter.
  static Image from_bytes(Bytes bytes, std::string name, Verify verify);
  // Is this an image at all? (`husk run` takes programs and images.)
  static bool looks_like_image(Bytes bytes);
  static bool looks_like_image(const std::string& path);

  const abi::ImageHeader& header() const { return header_; }
  Bytes bytes() const { return bytes_; }
  int descriptor() const { return file_ ? file_->descriptor() : -1; }  // of the file, for mapping it into a guest
  bool jit() const { return header_.flags & abi::kImageJit; }
  Bytes config() const { return part(header_.config_offset, header_.config_size); }
  Bytes rootfs() const { return part(header_.rootfs_offset, header_.rootfs_size); }
  Manifest manifest() const;

 private:
  Image(Bytes bytes, std::string name) : name_(std::move(name)), bytes_(bytes) {}
  Bytes part(u64 offset, u64 size) const { return bytes_.subspan(offset, size); }
  [[noreturn]] void fail(const std::string& what) const;
  void check_range(const char* what, u64 offset, u64 size, u64 alignment) const;
  void check_parts(const char* what, const abi::ImagePart* parts, u32 count, u64 extent) const;
  void check_layout();
  void check_addresses() const;
  void check_relocations() const;
  void check_digests() const;

  std::string name_;
  std::optional<MappedFile> file_;
  Bytes bytes_;
  abi::ImageHeader header_ = {};
};

}  // namespace husk::image
