#include "kernel/drivers/channel.h"

#include <algorithm>
#include <bit>
#include <cstring>

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
constexpr u16 kControlSize = 4;
constexpr u64 kControlOffset = align_up(kTransmitOffset + Virtqueue::memory_size(kQueueSize), 16);
constexpr u64 kMessagesOffset = align_up(kControlOffset + Virtqueue::memory_size(kControlSize), 16);
constexpr u32 kPort = 1;
// To be sent once: we know of the port, and it is open. The device's own messages are not asked for.
constexpr PortMessage kMessages[] = {{kPort, kPortDeviceReady, 1}, {kPort, kPortReady, 1}, {kPort, kPortOpen, 1}};
static_assert(kMessagesOffset + sizeof(kMessages) <= kPageSize);  // all in one page

u16 usable_size(virtio::Transport& transport, u32 queue) { return std::min(kQueueSize, std::bit_floor(transport.queue_size_max(queue))); }

bool has_two_ports(const virtio::Transport& transport) {
  return (transport.features() & feature_bit(kConsoleFeatureMultiport)) != 0 && transport.queue_size_max(kPortQueueCount - 1) != 0 &&
         transport.queue_size_max(kPortQueueCount) == 0;
}
}  // namespace

Result<Owned<Channel>> Channel::create(Owned<virtio::Transport> transport) {
  Owned<Channel> channel(new (std::nothrow) Channel());
  if (!channel) return Error(ENOMEM);
  bool ports = has_two_ports(*transport);
  u32 receive_queue = ports ? kPortReceiveQueue : kConsoleReceiveQueue;
  u32 transmit_queue = ports ? kPortTransmitQueue : kConsoleTransmitQueue;
  u64 features =
      transport->features() & (feature_bit(kFeatureVersion1) | feature_bit(kFeatureEventIndex) | (ports ? feature_bit(kConsoleFeatureMultiport) : 0));
  bool event_index = (features & feature_bit(kFeatureEventIndex)) != 0;
  u16 receive_size = usable_size(*transport, receive_queue);
  u16 transmit_size = usable_size(*transport, transmit_queue);
  if ((features & feature_bit(kFeatureVersion1)) == 0 || receive_size == 0 || transmit_size == 0) return Error(ENODEV);
  PhysAddr page = TRY(mem::allocate_frames(0, mem::Zeroed::yes));
  u8* memory = mem::direct(page);
  channel->receive_ = TRY(Virtqueue::create(receive_size, memory, page, event_index));
  channel->transmit_ = TRY(Virtqueue::create(transmit_size, memory + kTransmitOffset, page + kTransmitOffset, event_index));
  channel->input_ = TRY(make_owned<InputStream>(*transport, *channel->receive_, receive_queue));
  channel->output_ = TRY(make_owned<OutputStream>(*transport, *channel->transmit_, transmit_queue));
  Virtqueue* queues[kPortQueueCount] = {};
  queues[receive_queue] = channel->receive_.get();
  queues[transmit_queue] = channel->transmit_.get();
  if (ports) {
    channel->port_control_ = TRY(Virtqueue::create(kControlSize, memory + kControlOffset, page + kControlOffset, event_index));
    queues[kPortControlQueue] = channel->port_control_.get();
    memcpy(memory + kMessagesOffset, kMessages, sizeof(kMessages));
    channel->messages_ = page + kMessagesOffset;
  }
  TRY(transport->start(features, {queues, transmit_queue + 1}));
  channel->transport_ = std::move(transport);
  return channel;
}

Result<void> Channel::finish_start() {
  TRY(transport_->finish_start());
  if (!port_control_) return {};
  for (u64 at = 0; at < sizeof(kMessages); at += sizeof(PortMessage)) {
    virtio::QueueBuffer buffer{messages_ + at, sizeof(PortMessage), virtio::Direction::to_device};
    TRY(port_control_->offer({&buffer, 1}));
  }
  if (port_control_->publish()) transport_->notify(kPortControlQueue);
  return {};
}

bool Channel::poll() {
  bool any = false;
  if (input_->poll()) {
    any = true;
    input_waiters.wake_all(vfs::kIn);
  }
  any |= poll_output();
  if (receive_->broken() || transmit_->broken()) stop_if_broken();
  return any;
}

bool Channel::poll_output() {
  bool writable = false;
  bool any = output_->poll_for_writers(&writable);
  if (writable) output_waiters.wake_all(vfs::kOut);
  return any;
}

void Channel::collect_output() {
  if (output_waiters.empty()) (void)output_->poll();  // without a wish for interrupts
  else (void)poll_output();
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
