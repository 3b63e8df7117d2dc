// For tests: a driver's side of a virtqueue in a GuestMemory, which can also break every rule.
#pragma once

#include <string>

#include "abi/virtio/queue.h"
#include "vmm/devices/virtqueue.h"

namespace husk::vmm::testing {

// 1 MiB of guest memory at 0: descriptor table at 0x1000, available ring at 0x3000, used ring at 0x4000, buffers from 0x10000.
class FakeGuest {
 public:
  static constexpr u64 kMemory = 1 << 20, kBuffers = 0x10000;
  explicit FakeGuest(u64 base = 0, u32 size = 8) : layout{base + 0x1000, base + 0x3000, base + 0x4000, size} {}
  static void add_memory(GuestMemory& memory) { memory.add_ram(0, kMemory); }

  void descriptor(GuestMemory& memory, u16 index, u64 address, u32 length, u16 flags, u16 next = 0) {
    abi::virtio::Descriptor value{address, length, flags, next};
    memory.write(PhysAddr{layout.descriptors + index * sizeof(value)}, value);
  }
  void offer(GuestMemory& memory, u16 head) {
    memory.write(PhysAddr{layout.available + 4 + (index % layout.size) * 2}, head);
    memory.write(PhysAddr{layout.available + 2}, ++index);
  }
  void set_available_index(GuestMemory& memory, u16 value) { memory.write(PhysAddr{layout.available + 2}, index = value); }
  u16 used_index(GuestMemory& memory) {
    u16 value = 0;
    memory.read(PhysAddr{layout.used + 2}, &value);
    return value;
  }
  abi::virtio::UsedElement used(GuestMemory& memory, u16 slot) {
    abi::virtio::UsedElement value{};
    u64 address = layout.used + 4 + (slot % layout.size) * sizeof(value);  // aligned to 4 only
    memory.read(PhysAddr{address}, &value.id);
    memory.read(PhysAddr{address + 4}, &value.length);
    return value;
  }
  void set_used_event(GuestMemory& memory, u16 value) {
    memory.write(PhysAddr{layout.available + abi::virtio::used_event_offset(layout.size)}, value);
  }
  static void put(GuestMemory& memory, u64 address, std::string_view text) {
    memcpy(memory.writable({address}, text.size()).data(), text.data(), text.size());
  }
  static std::string get(GuestMemory& memory, u64 address, u64 size) {
    auto bytes = memory.readable({address}, size);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  QueueLayout layout;
  u16 index = 0;
};

}  // namespace husk::vmm::testing
