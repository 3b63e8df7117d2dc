// See guest_memory.h.
#include "vmm/guest_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "vmm/monitor_error.h"

namespace husk::vmm {

void throw_errno(const std::string& what, const std::string& hint) {
  int error = errno;
  throw MonitorError(what + ": " + strerror(error) + (hint.empty() ? "" : " (" + hint + ")"));
}

HostMapping::~HostMapping() {
  if (host_ != nullptr) munmap(host_, size_);
}

// Guest-physical and host addresses must agree modulo 2 MiB.
HostMapping HostMapping::reserve(u64 size) {
  u64 reserve;
  if (size == 0 || !checked_add(size, kHugePageSize, &reserve)) throw MonitorError("the memory size is not sensible");
  void* raw = mmap(nullptr, reserve, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) throw_errno("reserving the guest's memory", "give it less with -m");
  u64 first = reinterpret_cast<u64>(raw), aligned = align_up(first, kHugePageSize), end = align_up(aligned + size, kPageSize);
  if (aligned != first) munmap(raw, aligned - first);
  if (first + reserve > end) munmap(reinterpret_cast<void*>(end), first + reserve - end);
  return {reinterpret_cast<u8*>(aligned), size};
}

GuestMemory::~GuestMemory() {
  for (const Region& region : regions_) munmap(region.host, region.size);
}

void GuestMemory::add_ram(u64 start, u64 size) {
  u8* host = HostMapping::reserve(size).release();
  add(start, size, host, true);
  if (mprotect(host, size, PROT_READ | PROT_WRITE) != 0) throw_errno("reserving the guest's memory", "give it less with -m");
  madvise(host, size, MADV_HUGEPAGE);  // a host without huge pages works as well
  madvise(host, size, MADV_DONTFORK);
}

void GuestMemory::add_file_with_copy(u64 start, FileWithCopy& file) {
  const u64 size = file.mapping_.size();
  add(start, size, file.mapping_.release(), false);
  regions_.back().writable_for_kvm = file.copied_;
}

void GuestMemory::add_file(u64 start, u64 size, int fd) {
  void* host = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  if (host == MAP_FAILED) throw_errno("mapping the image");
  add(start, size, host, false);
}

void GuestMemory::add(u64 start, u64 size, void* host, bool writable) { regions_.push_back({start, size, static_cast<u8*>(host), writable}); }

std::span<u8> GuestMemory::range(PhysAddr address, u64 size, Access access) const {
  for (const Region& hidden : hidden_) {
    if (address.value < hidden.start + hidden.size && (address.value >= hidden.start || size > hidden.start - address.value)) return {};
  }
  return find(address, size, access);
}

std::span<u8> GuestMemory::nub_range(PhysAddr address, u64 size) const { return find(address, size, Access::write); }

std::span<u8> GuestMemory::find(PhysAddr address, u64 size, Access access) const {
  for (const Region& region : regions_) {
    u64 offset = address.value - region.start;  // wraps for addresses below: then larger than any region
    if (offset >= region.size || size > region.size - offset) continue;
    if (size == 0 || (access == Access::write && !region.writable)) break;
    return {region.host + offset, size};
  }
  return {};
}

FileWithCopy::FileWithCopy(u64 size, int fd, u64 hole_start, u64 hole_end)
    : mapping_(HostMapping::reserve(std::max(size, std::min(align_up(size, kHugePageSize), kCopiedMax)))),
      fd_(fcntl(fd, F_DUPFD_CLOEXEC, 0)),
      size_(size),
      copied_(std::min(align_up(size, kHugePageSize), kCopiedMax)),
      hole_start_(hole_start),
      hole_end_(hole_end) {
  if (fd_.get() < 0) throw_errno("reading the image");
  if (mprotect(mapping_.host(), copied_, PROT_READ | PROT_WRITE) != 0) throw_errno("reserving memory for the image");
  madvise(mapping_.host(), copied_, MADV_HUGEPAGE);
  if (size <= copied_) return;
  void* rest = mmap(mapping_.host() + copied_, size - copied_, PROT_READ, MAP_SHARED | MAP_FIXED, fd, static_cast<off_t>(copied_));
  if (rest == MAP_FAILED) throw_errno("mapping the image");
}

void FileWithCopy::work() {
  for (u64 from; (from = next_.fetch_add(kHugePageSize)) < copied_;) {
    const u64 to = std::min(from + kHugePageSize, size_);
    madvise(mapping_.host() + from, kHugePageSize,
            MADV_POPULATE_WRITE);  // reading into what is not there yet is slower; a host that cannot does that
    read(from, std::min(to, hole_start_));
    read(std::max(from, hole_end_), to);
  }
}

void FileWithCopy::read(u64 from, u64 to) {
  while (from < to) {
    ssize_t got = pread(fd_.get(), mapping_.host() + from, to - from, static_cast<off_t>(from));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno("reading the image");
    if (got == 0) throw MonitorError("reading the image: it has become shorter; make it again with husk build");
    from += static_cast<u64>(got);
  }
}

}  // namespace husk::vmm
