// System calls and SHA-256 behind image/file.h.
#include "image/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <filesystem>
#include <utility>

namespace husk::image {

void fail_errno(const std::string& what) { throw Error(what + ": " + strerror(errno)); }

Descriptor::~Descriptor() {
  if (fd_ >= 0) close(fd_);
}

MappedFile MappedFile::open(const std::string& path) {
  MappedFile file;
  file.descriptor_ = Descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.descriptor_.valid()) fail_errno(path);
  if (fstat(file.descriptor(), &file.status_) != 0) fail_errno(path);
  if (!S_ISREG(file.status_.st_mode)) throw Error(path + ": is not a regular file");
  u64 size = static_cast<u64>(file.status_.st_size);
  if (size == 0) return file;
  void* address = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.descriptor(), 0);
  if (address == MAP_FAILED) fail_errno(path);
  file.bytes_ = {static_cast<const u8*>(address), size};
  return file;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : descriptor_(std::move(other.descriptor_)), status_(other.status_), bytes_(std::exchange(other.bytes_, {})) {}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<u8*>(bytes_.data()), bytes_.size());
}

void write_all(int fd, Bytes bytes, u64 offset, const std::string& name) {
  while (!bytes.empty()) {
    ssize_t written = pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail_errno(name);
    bytes = bytes.subspan(static_cast<size_t>(written));
    offset += static_cast<u64>(written);
  }
}

TemporaryDirectory::TemporaryDirectory() {
  const char* parent = getenv("TMPDIR");
  if (!parent || !*parent) parent = "/tmp";
  path_ = std::string(parent) + "/husk-build-XXXXXX";
  if (!mkdtemp(path_.data())) fail_errno("cannot make a temporary directory in " + std::string(parent));
  guard_.start([this] {
    for (int i = 0; i < 100 && access(path_.c_str(), F_OK) == 0; ++i, usleep(20'000)) remove();  // a program may still write into it
  });
}

TemporaryDirectory::~TemporaryDirectory() { remove(); }

void TemporaryDirectory::remove() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void Sha256::add(Bytes bytes) { sha256_update(&context_, bytes.size(), bytes.data()); }
void Sha256::add_number(u64 value) { add({reinterpret_cast<const u8*>(&value), sizeof(value)}); }
void Sha256::add_text(std::string_view text) {
  add_number(text.size());
  add(as_bytes(text));
}
Digest Sha256::finish() {
  Digest digest;
  sha256_digest(&context_, digest.size(), digest.data());
  return digest;
}

Digest sha256(Bytes bytes) {
  Sha256 hash;
  hash.add(bytes);
  return hash.finish();
}

std::string hex(Bytes bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (u8 byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace husk::image
