// See guest_memory.h.
#include "vmm/guest_memory.h"

#include <errno.h>
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

GuestMemory::~GuestMemory() {
  for (const Region& region : regions_) munmap(region.host, region.size);
}

// Addresses for `size` bytes (none accessible yet), aligned for huge pages: guest-physical and host addresses must agree modulo 2 MiB.
HostMapping GuestMemory::reserve_aligned(u64 size) {
  u64 reserve;
  if (size == 0 || !checked_add(size, kHugePageSize, &reserve)) throw MonitorError("the memory size is not sensible");
  void* raw = mmap(nullptr, reserve, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) throw_errno("reserving the guest's memory", "give it less with -m");
  u64 first = reinterpret_cast<u64>(raw), aligned = align_up(first, kHugePageSize), end = align_up(aligned + size, kPageSize);
  if (aligned != first) munmap(raw, aligned - first);
  if (first + reserve > end) munmap(reinterpret_cast<void*>(end), first + reserve - end);
  return {reinterpret_cast<u8*>(aligned), size};
}

void GuestMemory::add_ram(u64 start, u64 size) {
  u8* host = reserve_aligned(size).release();
  add(start, size, host, true);
  if (mprotect(host, size, PROT_READ | PROT_WRITE) != 0) throw_errno("reserving the guest's memory", "give it less with -m");
  madvise(host, size, MADV_HUGEPAGE);  // a host without huge pages works as well
  madvise(host, size, MADV_DONTFORK);
}

HostMapping GuestMemory::map_file_with_copied_start(u64 size, int fd) {
  const u64 copied = std::min(align_up(size, kHugePageSize), kCopiedMax);
  HostMapping file = reserve_aligned(std::max(size, copied));
  if (mprotect(file.host(), copied, PROT_READ | PROT_WRITE) != 0) throw_errno("reserving memory for the image");
  madvise(file.host(), copied, MADV_HUGEPAGE);
  madvise(file.host(), copied, MADV_POPULATE_WRITE);  // reading into what is not there yet is slower; a host that cannot does that
  for (u64 done = 0, end = std::min(size, copied); done < end;) {
    ssize_t got = pread(fd, file.host() + done, end - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno("reading the image");
    if (got == 0) throw MonitorError("reading the image: it has become shorter; make it again with husk build");
    done += static_cast<u64>(got);
  }
  if (size <= copied) return file;
  void* rest = mmap(file.host() + copied, size - copied, PROT_READ, MAP_SHARED | MAP_FIXED, fd, static_cast<off_t>(copied));
  if (rest == MAP_FAILED) throw_errno("mapping the image");
  return file;
}

void GuestMemory::add_file_with_copied_start(u64 start, HostMapping file) {
  u64 size = file.size();
  add(start, size, file.release(), false);
  regions_.back().writable_for_kvm = std::min(size, kCopiedMax);
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

}  // namespace husk::vmm
