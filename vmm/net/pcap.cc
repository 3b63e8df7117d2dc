// See vmm/net/pcap.h. Format: draft-ietf-opsawg-pcap.
#include "vmm/net/pcap.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

namespace husk::vmm::net {
namespace {

constexpr u32 kNanosecondMagic = 0xa1b23c4d, kLinkEthernet = 1;
constexpr size_t kMany = 256 * kKiB, kTooMany = 4 * kMiB;

struct FileHeader {
  u32 magic = kNanosecondMagic;
  u16 major = 2, minor = 4;
  u32 reserved[2] = {};
  u32 snap_length = PcapWriter::kSnapLength;
  u32 link_type = kLinkEthernet;
};
static_assert(sizeof(FileHeader) == 24);

struct RecordHeader {
  u32 seconds, nanoseconds;
  u32 captured, original;
};

}  // namespace

PcapWriter::PcapWriter(int fd) : fd_(fd) {
  FileHeader header;
  append(&header, sizeof(header));
}

void PcapWriter::append(const void* bytes, size_t size) {
  const u8* first = static_cast<const u8*>(bytes);
  buffer_.insert(buffer_.end(), first, first + size);
}

void PcapWriter::add(std::span<const iovec> frame) {
  if (buffer_.size() >= kMany) flush();
  if (error_ != 0 || buffer_.size() >= kTooMany) {
    ++dropped_;
    return;
  }
  size_t size = 0;
  for (const iovec& part : frame) size += part.iov_len;
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  size_t left = std::min<size_t>(size, kSnapLength);
  RecordHeader header{static_cast<u32>(now.tv_sec), static_cast<u32>(now.tv_nsec), static_cast<u32>(left), static_cast<u32>(size)};
  append(&header, sizeof(header));
  for (const iovec& part : frame) {
    size_t count = std::min(left, part.iov_len);
    append(part.iov_base, count);
    left -= count;
  }
}

void PcapWriter::flush() {
  size_t done = 0;
  while (error_ == 0 && done < buffer_.size()) {
    ssize_t count = write(fd_, buffer_.data() + done, buffer_.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      if (errno != EAGAIN) error_ = errno;
      break;
    }
    done += static_cast<size_t>(count);
  }
  buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<ptrdiff_t>(done));
  if (error_ != 0) buffer_.clear();
}

}  // namespace husk::vmm::net
