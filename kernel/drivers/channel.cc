#include "kernel/drivers/channel.h"

#include <algorithm>
#include <bit>

#include "abi/virtio/console.h"
#include "kernel/log.h"
#include "kernel/mem/frames.h"
#include "kernel/vfs/file.h"

namespace husk::drivers {

using namespace abi::virtio;
using virtio::Virtqueue;

namespace {
constexpr u16 kQueueSize = OutputStream::kFlightsMax;
constexpr u64 kTransmitOffset = align_up(Virtqueue::memory_size(kQueueSize), 16);
static_assert(kTransmitOffset + Virtqueue::memory_size(kQueueSize) <= kPageSize);  // both in one page

u16 usable_size(virtio::Transport& transport, u32 queue) {
  return std::min(kQueueSize, std::bit_floor(transport.queue_size_max(queue)));
}
}  // namespace

Result<Owned<Channel>> Channel::create(Owned<virtio::Transport> transport) {
  Owned<Channel> channel(new (std::nothrow) Channel());
  if (!channel) return Error(ENOMEM);
  u64 features = transport->features() & (feature_bit(kFeatureVersion1) | feature_bit(kFeatureEventIndex));
  bool event_index = (features & feature_bit(kFeatureEventIndex)) != 0;
  u16 receive_size = usable_size(*transport, kConsoleReceiveQueue);
  u16 transmit_size = usable_size(*transport, kConsoleTransmitQueue);
  if ((features & feature_bit(kFeatureVersion1)) == 0 || receive_size == 0 || transmit_size == 0) return Error(ENODEV);
  PhysAddr page = TRY(mem::allocate_frames(0, mem::Zeroed::yes));
  u8* memory = mem::direct(page);
  channel->receive_ = TRY(Virtqueue::create(receive_size, memory, page, event_index));
  channel->transmit_ =
      TRY(Virtqueue::create(transmit_size, memory + kTransmitOffset, page + kTransmitOffset, event_index));
  channel->input_ = TRY(make_owned<InputStream>(*transport, *channel->receive_, kConsoleReceiveQueue));
  channel->output_ = TRY(make_owned<OutputStream>(*transport, *channel->transmit_, kConsoleTransmitQueue));
  Virtqueue* queues[kConsoleQueueCount] = {channel->receive_.get(), channel->transmit_.get()};
  TRY(transport->start(features, queues));
  channel->transport_ = std::move(transport);
  return channel;
}

bool Channel::poll() {
  bool any = false;
  if (input_->poll()) {
    any = true;
    input_waiters.wake_all(vfs::kIn);
  }
  if (output_->poll()) {
    any = true;
    if (output_->roomy() || output_->idle()) output_waiters.wake_all(vfs::kOut);
  }
  if (receive_->broken() || transmit_->broken()) stop_if_broken();
  return any;
}

void Channel::stop_if_broken() {
  if (stopped_) return;
  stopped_ = true;
  transport_->stop();
  input_waiters.wake_all(vfs::kIn | vfs::kHup);
  output_waiters.wake_all(vfs::kOut | vfs::kErr);
  log(LogLevel::error, "console: the device returned a buffer that it was not given; stopped");
}

}  // namespace husk::drivers
