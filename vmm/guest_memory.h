// The guest's physical memory as the monitor sees it: bounds-checked, safe against any address and size that a guest may name.
//
// Owned by the Vm; shared by the loader and by all devices, on any thread. Regions are added before the guest runs and never change,
// so lookups need no lock. The guest changes the bytes at any time: read a field once, into a local, and judge the local.
#pragma once

#include <string.h>

#include <atomic>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/types.h"
#include "host/file_descriptor.h"

namespace husk::vmm {

enum class Access { read, write };

// Memory of this process that is to become a region of a guest's.
class HostMapping {
 public:
  HostMapping() = default;
  HostMapping(u8* host, u64 size) : host_(host), size_(size) {}
  HostMapping(HostMapping&& other) noexcept : host_(other.release()), size_(other.size_) {}
  HostMapping& operator=(HostMapping&& other) noexcept {
    std::swap(host_, other.host_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~HostMapping();
  // Addresses for `size` bytes (none accessible yet), aligned for large pages. Throws MonitorError.
  static HostMapping reserve(u64 size);
  u8* host() const { return host_; }  // null: none
  u64 size() const { return size_; }
  u8* release() { return std::exchange(host_, nullptr); }

 private:
  u8* host_ = nullptr;
  u64 size_ = 0;
};

// A file, mapped, whose first kCopiedMax bytes (whole large pages) become memory of this machine alone. KVM may write to the copy, so that it maps
// neighbouring pages ahead (it does not in read-only slots: 10 to 20 us a page where it shadows page tables); the nub's page tables do not let the guest.
// Copying takes some milliseconds and touches no GuestMemory: whatever threads have time may work at it together.
class FileWithCopy {
 public:
  static constexpr u64 kCopiedMax = 8 * kMiB;

  // Of the file's [hole_start, hole_end) nothing is read: it becomes zeros as far as it is copied. The descriptor may be closed afterwards. Throws
  // MonitorError.
  FileWithCopy(u64 size, int fd, u64 hole_start, u64 hole_end);
  // Copies large pages that no thread has begun until there are none. Throws MonitorError.
  void work();

 private:
  friend class GuestMemory;
  void read(u64 from, u64 to);
  HostMapping mapping_;
  const host::FileDescriptor fd_;
  const u64 size_, copied_, hole_start_, hole_end_;  // copied_ may be more than the file has: zeros follow it
  std::atomic<u64> next_{0};
};

class GuestMemory {
 public:
  GuestMemory() = default;
  ~GuestMemory();
  GuestMemory(const GuestMemory&) = delete;
  GuestMemory& operator=(const GuestMemory&) = delete;

  // Anonymous memory, not reserved, huge pages where the host has them. Throws MonitorError.
  void add_ram(u64 start, u64 size);
  // The first `size` bytes of a file, shared with everybody who maps it, never writable. The descriptor may be closed afterwards.
  void add_file(u64 start, u64 size, int fd);

  // The same as a FileWithCopy made it, which nobody may be working on any more.
  void add_file_with_copy(u64 start, FileWithCopy& file);

  // From now on range() and what builds on it refuse these addresses: the nub's memory and what it sealed, which devices must not reach on the
  // guest's behalf. Once per range, before the guest runs.
  void hide(u64 start, u64 size) { hidden_.push_back({start, size, nullptr, false}); }
  // Only for the one who does the nub's work (TableEditor): writable memory whether hidden or not.
  std::span<u8> nub_range(PhysAddr address, u64 size) const;

  // [address, address + size) if it lies in one region that allows the access; else an empty span. Size 0 gives an empty span.
  std::span<u8> range(PhysAddr address, u64 size, Access access) const;
  std::span<const u8> readable(PhysAddr address, u64 size) const { return range(address, size, Access::read); }
  std::span<u8> writable(PhysAddr address, u64 size) const { return range(address, size, Access::write); }

  // One naturally aligned object that the guest may be writing: a single load or store for 1, 2, 4 and 8 bytes.
  template <typename T>
  bool read(PhysAddr address, T* value) const {
    static_assert(std::is_trivially_copyable_v<T>);
    std::span<const u8> bytes = readable(address, sizeof(T));
    if (bytes.empty()) return false;
    if constexpr (sizeof(T) <= 8 && (sizeof(T) & (sizeof(T) - 1)) == 0) {
      if (!is_aligned(address.value, sizeof(T))) return false;
      __atomic_load(reinterpret_cast<const T*>(bytes.data()), value, __ATOMIC_ACQUIRE);
    } else {
      memcpy(value, bytes.data(), sizeof(T));
    }
    return true;
  }
  template <typename T>
  bool write(PhysAddr address, const T& value) const {
    static_assert(std::is_trivially_copyable_v<T>);
    std::span<u8> bytes = writable(address, sizeof(T));
    if (bytes.empty()) return false;
    if constexpr (sizeof(T) <= 8 && (sizeof(T) & (sizeof(T) - 1)) == 0) {
      if (!is_aligned(address.value, sizeof(T))) return false;
      __atomic_store(reinterpret_cast<T*>(bytes.data()), const_cast<T*>(&value), __ATOMIC_RELEASE);
    } else {
      memcpy(bytes.data(), &value, sizeof(T));
    }
    return true;
  }

  struct Region {
    u64 start, size;
    u8* host;
    bool writable;             // for devices
    u64 writable_for_kvm = 0;  // bytes from the start, if not all
  };
  const std::vector<Region>& regions() const { return regions_; }

 private:
  std::span<u8> find(PhysAddr address, u64 size, Access access) const;
  void add(u64 start, u64 size, void* host, bool writable);
  std::vector<Region> regions_, hidden_;
};

}  // namespace husk::vmm
