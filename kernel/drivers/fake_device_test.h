// The device's side for tests: memory that the queues live in, a transport that records doorbells, and a device that can misbehave.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernel/drivers/virtio/transport.h"

namespace husk::drivers {

class FakeTransport final : public virtio::Transport {
 public:
  abi::virtio::DeviceId id() const override { return abi::virtio::DeviceId::console; }
  u64 features() const override { return offered; }
  u16 queue_size_max(u32) const override { return size_max; }
  Result<void> start(u64 features, std::span<virtio::Virtqueue* const> used) override {
    accepted = features;
    queues.assign(used.begin(), used.end());
    return {};
  }
  Result<void> ask_configuration(std::span<u32> words) override {
    for (size_t i = 0; i < words.size(); ++i) words[i] = i < configuration.size() ? configuration[i] : 0;
    return {};
  }
  Result<void> finish_start() override { return {}; }
  void notify(u32) override { ++doorbells; }
  void stop() override { ++stops; }
  int doorbells = 0, stops = 0;
  u16 size_max = 64;
  u64 offered = 0, accepted = 0;
  std::vector<u32> configuration;
  std::vector<virtio::Virtqueue*> queues;
};

// The device's end of a driver's queue. Guest-physical 0 is at `direct_base`.
class DeviceQueue {
 public:
  explicit DeviceQueue(virtio::Virtqueue* driver, u64 direct_base = 0) : end_(driver), size_(driver->size()), direct_base_(direct_base) {}

  struct Chain {
    u16 id;
    std::vector<abi::virtio::Descriptor> parts;
  };
  bool next(Chain* chain) {
    auto* header = at<abi::virtio::AvailableHeader>(end_->available_address());
    if (header->index == seen_) return false;
    u16 id = reinterpret_cast<u16*>(header + 1)[seen_++ % size_];
    chain->id = id;
    chain->parts.clear();
    for (u16 at_part = id;;) {
      auto part = at<abi::virtio::Descriptor>(end_->descriptors_address())[at_part];
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
  abi::virtio::UsedHeader* used() { return at<abi::virtio::UsedHeader>(end_->used_address()); }
  void set_available_event(u16 index) { memcpy(reinterpret_cast<u8*>(used()) + abi::virtio::available_event_offset(size_), &index, 2); }
  u16 used_event() {
    u16 index;
    memcpy(&index, at<u8>(end_->available_address()) + abi::virtio::used_event_offset(size_), 2);
    return index;
  }
  // Whether an interrupt is due for what was finished since the last call (virtio 1.2 §2.7.7.2).
  bool interrupt_is_due() {
    u16 now = used()->index, before = std::exchange(told_, now);
    return now != before && abi::virtio::event_is_due(used_event(), now, before);
  }
  // A well-behaved console: takes everything that is there.
  std::string take_all() {
    std::string text;
    for (Chain chain; next(&chain);) {
      for (auto& part : chain.parts) text.append(at<char>(PhysAddr{part.address}), part.length);
      finish(chain.id, 0);
    }
    return text;
  }
  // Fills offered buffers with text; gives how much there was room for.
  size_t give(std::string_view text) {
    size_t done = 0;
    for (Chain chain; done < text.size() && next(&chain);) {
      size_t step = std::min<size_t>(chain.parts[0].length, text.size() - done);
      memcpy(at<u8>(PhysAddr{chain.parts[0].address}), text.data() + done, step);
      finish(chain.id, static_cast<u32>(step));
      done += step;
    }
    return done;
  }

  size_t offered() const {
    return static_cast<u16>(at<abi::virtio::AvailableHeader>(end_->available_address())->index - seen_);
  }  // and not taken by next()

 private:
  template <typename T>
  T* at(PhysAddr address) const {
    return reinterpret_cast<T*>(direct_base_ + address.value);
  }
  virtio::Virtqueue* end_;
  u16 size_;
  u64 direct_base_;
  u16 seen_ = 0, told_ = 0;
};

// Both ends, in memory of its own.
struct QueueMemory {
  QueueMemory(u16 size, bool event_index) : memory(new (std::align_val_t(4096)) u8[8192]()) {
    queue = virtio::Virtqueue::create(size, memory, {reinterpret_cast<u64>(memory)}, event_index).value();
  }
  ~QueueMemory() { ::operator delete[](memory, std::align_val_t(4096)); }
  u8* memory;
  Owned<virtio::Virtqueue> queue;
};
class FakeQueue : private QueueMemory, public DeviceQueue {
 public:
  FakeQueue(u16 size, bool event_index) : QueueMemory(size, event_index), DeviceQueue(QueueMemory::queue.get()) {}
  using QueueMemory::queue;
};

}  // namespace husk::drivers
