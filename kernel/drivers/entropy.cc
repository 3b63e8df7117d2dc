// The virtio entropy device (virtio 1.2 §5.4): one buffer, asked for once and mixed in when it comes.
#include "kernel/drivers/devices.h"
#include "kernel/mem/frames.h"
#include "kernel/random.h"
#include "kernel/sched/sched.h"

namespace husk::drivers {

namespace {

constexpr u16 kQueueSize = 2;
constexpr u64 kBufferOffset = 2048;  // in the page, behind the queue
constexpr u32 kBufferSize = 32;

class EntropyDevice final : public sched::Poller {
 public:
  EntropyDevice(Owned<virtio::Transport> transport, Owned<virtio::Virtqueue> queue, u8* page)
      : transport_(std::move(transport)), queue_(std::move(queue)), page_(page) {}

  Result<void> start(PhysAddr page) {
    virtio::Virtqueue* queues[] = {queue_.get()};
    TRY(transport_->start(abi::virtio::feature_bit(abi::virtio::kFeatureVersion1), queues));
    TRY(transport_->finish_start());
    virtio::QueueBuffer buffer{page + kBufferOffset, kBufferSize, virtio::Direction::from_device};
    TRY(queue_->offer({&buffer, 1}));
    if (queue_->publish()) transport_->notify(0);
    return {};
  }

  bool poll() override {
    virtio::UsedBuffer used;
    if (!queue_->take(&used)) return false;
    add_entropy({page_ + kBufferOffset, used.length});
    return true;
  }

 private:
  Owned<virtio::Transport> transport_;
  Owned<virtio::Virtqueue> queue_;
  u8* page_;
};
static_assert(virtio::Virtqueue::memory_size(kQueueSize) <= kBufferOffset);

}  // namespace

Result<void> start_entropy(Owned<virtio::Transport> transport) {
  constexpr u64 kFeature = abi::virtio::feature_bit(abi::virtio::kFeatureVersion1);
  if ((transport->features() & kFeature) == 0 || transport->queue_size_max(0) < kQueueSize) return Error(ENODEV);
  PhysAddr page = TRY(mem::allocate_frames(0, mem::Zeroed::yes));
  auto queue = TRY(virtio::Virtqueue::create(kQueueSize, mem::direct(page), page, false));
  auto device = TRY(make_owned<EntropyDevice>(std::move(transport), std::move(queue), mem::direct(page)));
  TRY(device->start(page));
  sched::register_poller(device.release());
  return {};
}

}  // namespace husk::drivers
