// Small host tools that every part of the image library uses: the one exception type, byte access that
// needs no alignment, mapped files, temporary directories, digests.
//
// Everything here is for one thread at a time; nothing is global.
#pragma once

#include <nettle/sha2.h>
#include <string.h>
#include <sys/stat.h>

#include <array>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/types.h"
#include "host/death_guard.h"

namespace husk::image {

using Bytes = std::span<const u8>;

// Thrown inside the library; the message is meant for the user: what is wrong, where, what to do.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Something that a program needs is not there.
class MissingError : public Error {
 public:
  using Error::Error;
};

// "WHAT: strerror" for a failed system call.
[[noreturn]] void fail_errno(const std::string& what);

// A T at an offset, if all of it lies inside.
template <typename T>
std::optional<T> read_at(Bytes bytes, u64 offset) {
  static_assert(std::is_trivially_copyable_v<T>);
  if (offset > bytes.size() || bytes.size() - offset < sizeof(T)) return std::nullopt;
  T value;
  memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

// The part [offset, offset + size), if all of it lies inside.
inline std::optional<Bytes> slice(Bytes bytes, u64 offset, u64 size) {
  if (offset > bytes.size() || bytes.size() - offset < size) return std::nullopt;
  return bytes.subspan(offset, size);
}

template <typename T>
void write_at(std::vector<u8>& bytes, u64 offset, const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  if (offset > bytes.size() || bytes.size() - offset < sizeof(T)) throw Error("internal: write outside a buffer");
  memcpy(bytes.data() + offset, &value, sizeof(T));
}

inline Bytes as_bytes(std::string_view text) { return {reinterpret_cast<const u8*>(text.data()), text.size()}; }
inline std::string_view as_text(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor();
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

 private:
  int fd_;
};

// A regular file mapped read-only (private). The descriptor stays open for those who map it elsewhere.
class MappedFile {
 public:
  static MappedFile open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();
  Bytes bytes() const { return bytes_; }
  int descriptor() const { return descriptor_.get(); }
  const struct stat& status() const { return status_; }

 private:
  MappedFile() = default;
  Descriptor descriptor_;
  struct stat status_ = {};
  Bytes bytes_;
};

void write_all(int fd, Bytes bytes, u64 offset, const std::string& name);

// A directory that is removed with all that is in it, also if this process is killed.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory();
  const std::string& path() const { return path_; }

 private:
  void remove();
  std::string path_;
  host::DeathGuard guard_;
};

using Digest = std::array<u8, 32>;

// SHA-256, fed in pieces. Integers and strings are fed with their length, so that no two inputs run together.
class Sha256 {
 public:
  Sha256() { sha256_init(&context_); }
  void add(Bytes bytes);
  void add_text(std::string_view text);
  void add_number(u64 value);
  Digest finish();

 private:
  sha256_ctx context_;
};

Digest sha256(Bytes bytes);
std::string hex(Bytes bytes);

}  // namespace husk::image
