// See vmm/devices/control_channel.h.
#include "vmm/devices/control_channel.h"

#include <errno.h>
#include <string.h>

#include <algorithm>

namespace husk::vmm {

namespace {
// Buffers may be as large as the guest's memory, and the same again and again: the thread has other things to do, too.
constexpr size_t kBytesAtOnce = 1 << 20;
}  // namespace

ssize_t ControlReceiver::write(std::span<const iovec> buffers) {
  size_t total = 0;
  for (const iovec& buffer : buffers) {
    if (!ready_()) return total > 0 ? static_cast<ssize_t>(total) : -EAGAIN;
    size_t size = std::min(buffer.iov_len, kBytesAtOnce - total);
    feed({static_cast<const u8*>(buffer.iov_base), size});
    total += size;
    if (total == kBytesAtOnce) break;
  }
  return static_cast<ssize_t>(total);
}

void ControlReceiver::feed(std::span<const u8> bytes) {
  // A private copy first: the guest may change its memory while we look.
  while (!bytes.empty() && !malformed_) {
    size_t piece = std::min<size_t>(bytes.size(), abi::kRecordSizeMax);
    pending_.insert(pending_.end(), bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(piece));
    bytes = bytes.subspan(piece);
    size_t done = 0;
    while (pending_.size() - done >= sizeof(abi::RecordHeader)) {
      abi::RecordHeader header;
      memcpy(&header, pending_.data() + done, sizeof(header));
      u32 type = static_cast<u32>(header.type);
      if (header.size > abi::kRecordSizeMax || type == 0 || type >= static_cast<u32>(abi::RecordType::input_end)) {
        malformed_ = true;
        break;
      }
      if (pending_.size() - done - sizeof(header) < header.size) break;
      handler_(header.type, std::span<const u8>(pending_).subspan(done + sizeof(header), header.size));
      done += sizeof(header) + header.size;
    }
    pending_.erase(pending_.begin(), pending_.begin() + static_cast<ptrdiff_t>(done));
  }
  if (malformed_) pending_.clear();
}

void ControlSender::send(abi::RecordType type, std::span<const u8> payload) {
  {
    std::lock_guard lock(mutex_);
    if (pending_.size() + payload.size() > kPendingMax) return;
    abi::RecordHeader header{type, static_cast<u32>(payload.size())};
    const u8* head = reinterpret_cast<const u8*>(&header);
    pending_.insert(pending_.end(), head, head + sizeof(header));
    pending_.insert(pending_.end(), payload.begin(), payload.end());
  }
  wake_();
}

ssize_t ControlSender::read(std::span<const iovec> buffers) {
  std::lock_guard lock(mutex_);
  if (pending_.empty()) return -EAGAIN;
  size_t done = 0;
  for (const iovec& buffer : buffers) {
    size_t part = std::min(buffer.iov_len, pending_.size() - done);
    memcpy(buffer.iov_base, pending_.data() + done, part);
    done += part;
    if (done == pending_.size()) break;
  }
  pending_.erase(pending_.begin(), pending_.begin() + static_cast<ptrdiff_t>(done));
  return static_cast<ssize_t>(done);
}

}  // namespace husk::vmm
