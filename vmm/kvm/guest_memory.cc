// See guest_memory.h.
#include "vmm/guest_memory.h"

#include <errno.h>
#include <sys/mman.h>

#include <cstring>

#include "vmm/monitor_error.h"

namespace husk::vmm {

void throw_errno(const std::string& what, const std::string& hint) {
  int error = errno;
  throw MonitorError(what + ": " + strerror(error) + (hint.empty() ? "" : " (" + hint + ")"));
}

GuestMemory::~GuestMemory() {
  for (const Region& region : regions_) munmap(region.host, region.size);
}

void GuestMemory::add_ram(u64 start, u64 size) {
  // Aligned for huge pages: guest-physical and host addresses must agree modulo 2 MiB.
  u64 reserve;
  if (size == 0 || !checked_add(size, kHugePageSize, &reserve)) throw MonitorError("the memory size is not sensible");
  void* raw = mmap(nullptr, reserve, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) throw_errno("reserving the guest's memory", "give it less with -m");
  u64 first = reinterpret_cast<u64>(raw), aligned = align_up(first, kHugePageSize);
  if (aligned != first) munmap(raw, aligned - first);
  if (u64 rest = first + reserve - (aligned + size); rest != 0) munmap(reinterpret_cast<void*>(aligned + size), rest);
  void* host = reinterpret_cast<void*>(aligned);
  if (mprotect(host, size, PROT_READ | PROT_WRITE) != 0) {
    munmap(host, size);
    throw_errno("reserving the guest's memory", "give it less with -m");
  }
  madvise(host, size, MADV_HUGEPAGE);   // a host without huge pages works as well
  madvise(host, size, MADV_DONTFORK);
  add(start, size, host, true);
}

void GuestMemory::add_file(u64 start, u64 size, int fd) {
  void* host = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  if (host == MAP_FAILED) throw_errno("mapping the image");
  add(start, size, host, false);
}

void GuestMemory::add(u64 start, u64 size, void* host, bool writable) {
  regions_.push_back({start, size, static_cast<u8*>(host), writable});
}

std::span<u8> GuestMemory::range(PhysAddr address, u64 size, Access access) const {
  for (const Region& region : regions_) {
    u64 offset = address.value - region.start;  // wraps for addresses below: then larger than any region
    if (offset >= region.size || size > region.size - offset) continue;
    if (size == 0 || (access == Access::write && !region.writable)) break;
    return {region.host + offset, size};
  }
  return {};
}

}  // namespace husk::vmm
