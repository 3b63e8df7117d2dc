// The guest's physical memory as the monitor sees it: bounds-checked, safe against any address and size that a guest may name.
//
// Owned by the Vm; shared by the loader and by all devices, on any thread. Regions are added before the guest runs and never change,
// so lookups need no lock. The guest changes the bytes at any time: read a field once, into a local, and judge the local.
#pragma once

#include <string.h>

#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/types.h"

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
  u8* host() const { return host_; }  // null: none
  u64 size() const { return size_; }
  u8* release() { return std::exchange(host_, nullptr); }

 private:
  u8* host_ = nullptr;
  u64 size_ = 0;
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

  // The same, with the first kCopiedMax bytes (whole large pages) copied into memory of this machine alone. KVM may write to the copy, so that it maps
  // neighbouring pages ahead (it does not in read-only slots: 10 to 20 us a page where it shadows page tables); the nub's page tables do not let the guest.
  // In two steps: the first is slow and touches no GuestMemory, so that another thread may use one meanwhile.
  static constexpr u64 kCopiedMax = 8 * kMiB;
  static HostMapping map_file_with_copied_start(u64 size, int fd);
  void add_file_with_copied_start(u64 start, HostMapping file);

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
  static HostMapping reserve_aligned(u64 size);
  void add(u64 start, u64 size, void* host, bool writable);
  std::vector<Region> regions_, hidden_;
};

}  // namespace husk::vmm
