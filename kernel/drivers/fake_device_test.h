// The device's side for tests: memory that the queues live in, a transport that records doorbells, and a device that can misbehave.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "kernel/drivers/virtio/transport.h"

namespace husk::drivers {

class FakeTransport final : public virtio::Transport {
 public:
  abi::virtio::DeviceId id() const override { return abi::virtio::DeviceId::console; }
  u64 features() const override { return 0; }
  u16 queue_size_max(u32) const override { return 64; }
  Result<void> start(u64, std::span<virtio::Virtqueue* const>) override { return {}; }
  Result<void> finish_start() override { return {}; }
  void notify(u32) override { ++doorbells; }
  void stop() override { ++stops; }
  int doorbells = 0, stops = 0;
};

// Guest-physical addresses are pointers here.
class FakeQueue {
 public:
  FakeQueue(u16 size, bool event_index) : size_(size), memory_(new (std::align_val_t(4096)) u8[8192]()) {
    auto made = virtio::Virtqueue::create(size, memory_, {reinterpret_cast<u64>(memory_)}, event_index);
    queue = std::move(made).value();
  }
  ~FakeQueue() { ::operator delete[](memory_, std::align_val_t(4096)); }

  struct Chain {
    u16 id;
    std::vector<abi::virtio::Descriptor> parts;
  };
  bool next(Chain* chain) {
    auto* header = at<abi::virtio::AvailableHeader>(queue->available_address());
    if (header->index == seen_) return false;
    u16 id = reinterpret_cast<u16*>(header + 1)[seen_++ % size_];
    chain->id = id;
    chain->parts.clear();
    for (u16 at_part = id;;) {
      auto part = at<abi::virtio::Descriptor>(queue->descriptors_address())[at_part];
      chain->parts.push_back(part);
      if ((part.flags & abi::virtio::kDescriptorNext) == 0) return true;
      at_part = part.next;
    }
  }
  void finish(u32 id, u32 length) {
    auto* header = used();
    reinterpret_cast<abi::virtio::UsedElement*>(header + 1)[header->index % size_] = {id, length};
    ++header->index;
  }
  abi::virtio::UsedHeader* used() { return at<abi::virtio::UsedHeader>(queue->used_address()); }
  void set_available_event(u16 index) { memcpy(reinterpret_cast<u8*>(used()) + abi::virtio::available_event_offset(size_), &index, 2); }
  u16 used_event() {
    u16 index;
    memcpy(&index, at<u8>(queue->available_address()) + abi::virtio::used_event_offset(size_), 2);
    return index;
  }
  // A well-behaved console: takes everything that is there.
  std::string take_all() {
    std::string text;
    for (Chain chain; next(&chain);) {
      for (auto& part : chain.parts) text.append(reinterpret_cast<char*>(part.address), part.length);
      finish(chain.id, 0);
    }
    return text;
  }
  // Fills offered buffers with text; gives how much there was room for.
  size_t give(std::string_view text) {
    size_t done = 0;
    for (Chain chain; done < text.size() && next(&chain);) {
      size_t step = std::min<size_t>(chain.parts[0].length, text.size() - done);
      memcpy(reinterpret_cast<void*>(chain.parts[0].address), text.data() + done, step);
      finish(chain.id, static_cast<u32>(step));
      done += step;
    }
    return done;
  }

  Owned<virtio::Virtqueue> queue;

 private:
  template <typename T>
  T* at(PhysAddr address) {
    return reinterpret_cast<T*>(address.value);
  }
  u16 size_;
  u16 seen_ = 0;
  u8* memory_;
};

}  // namespace husk::drivers
