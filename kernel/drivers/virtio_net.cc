#include "kernel/drivers/virtio_net.h"

#include <string.h>

#include <algorithm>
#include <bit>

#include "kernel/log.h"
#include "kernel/mem/frames.h"
#include "kernel/random.h"
#include "kernel/sched/sched.h"

namespace husk::drivers {

using namespace abi::virtio;
using packet::Checksum;
using packet::Packet;
using packet::PacketPtr;
using packet::Segmentation;
using virtio::Virtqueue;

namespace {

constexpr u32 kHeaderSize = sizeof(NetHeader);
constexpr u32 kEthernetSize = 14;
constexpr u32 kFrameHeadersMax = kEthernetSize + 4;  // with a VLAN tag
constexpr u16 kMtuMin = 576, kMtuMax = 65500;
constexpr u32 kSizeMax = 65535 + kEthernetSize;                  // of a merged packet (§5.1.6.3.1)
constexpr u32 kReclaimBytes = 128 * kKiB, kReclaimPackets = 32;  // sent packets are given back in batches
constexpr u32 kReceiveBytesMax = 1 * kMiB;                       // in receive buffers: more would not stay in a cache
constexpr u64 kFreeShare = 32;                                   // receive buffers grow only to 1/32 of the free memory
constexpr u32 kDescriptorsMost = Packet::kSlicesMax + 1;         // of one packet to be sent
constexpr u16 kMergedQueueMin = 32;                              // receive buffers, for merged packets

constexpr u32 kSpareBuffers = 8;  // beyond the least, so that they are refilled in batches

constexpr bool has(u64 features, u32 number) { return (features & feature_bit(number)) != 0; }

// What we want of what is offered. Merged packets need mergeable buffers: without them each buffer would have to be of 64 KiB.
u64 choose_features(const virtio::Transport& transport) {
  u64 offered = transport.features();
  u64 wanted = feature_bit(kFeatureVersion1) | feature_bit(kFeatureEventIndex) | feature_bit(kNetFeatureMac) | feature_bit(kNetFeatureMtu) |
               feature_bit(kNetFeatureStatus) | feature_bit(kNetFeatureMergeableBuffers) | feature_bit(kNetFeatureChecksum) |
               feature_bit(kNetFeatureGuestChecksum);
  // §5.1.3.1: segmentation requires checksums.
  if (has(offered, kNetFeatureChecksum)) wanted |= feature_bit(kNetFeatureHostTcp4) | feature_bit(kNetFeatureHostTcp6);
  if (has(offered, kNetFeatureGuestChecksum) && has(offered, kNetFeatureMergeableBuffers) &&
      transport.queue_size_max(kNetReceiveQueue) >= kMergedQueueMin)
    wanted |= feature_bit(kNetFeatureGuestTcp4) | feature_bit(kNetFeatureGuestTcp6);
  return offered & wanted;
}

u16 queue_size(const virtio::Transport& transport, u32 queue) {
  return std::min(VirtioNet::kQueueSizeMax, std::bit_floor(transport.queue_size_max(queue)));
}

// Whether receive buffers may take so much of the memory that is free.
bool allows_buffers(u32 count, u32 size) { return u64{count} * size <= mem::memory_statistics().free / kFreeShare; }

// The queue's memory comes zeroed and lives for ever.
[[gnu::cold]] Result<Owned<Virtqueue>> make_queue(u16 size, bool event_index) {
  unsigned order = static_cast<unsigned>(std::bit_width((align_up(Virtqueue::memory_size(size), kPageSize) >> kPageShift) - 1));
  PhysAddr memory = TRY(mem::allocate_frames(order, mem::Zeroed::yes));
  auto queue = Virtqueue::create(size, mem::direct(memory), memory, event_index);
  if (!queue.ok()) mem::free_frames(memory, order);
  return queue;
}

}  // namespace

// --- starting ----------------------------------------------------------------------------------------------------

Result<Owned<VirtioNet>> VirtioNet::create(Owned<virtio::Transport> transport) {
  u64 features = choose_features(*transport);
  Owned<VirtioNet> device(new (std::nothrow) VirtioNet(std::move(transport)));
  if (!device) return Error(ENOMEM);
  if (!has(features, kFeatureVersion1)) return Error(ENODEV);
  TRY(device->make_queues(has(features, kFeatureEventIndex)));
  device->takes_partial_ = has(features, kNetFeatureGuestChecksum);
  device->takes_tcp4_ = has(features, kNetFeatureGuestTcp4);
  device->takes_tcp6_ = has(features, kNetFeatureGuestTcp6);
  device->merges_ = has(features, kNetFeatureMergeableBuffers);

  u32 words[sizeof(NetConfig) / sizeof(u32)] = {};
  Virtqueue* queues[kNetQueueCount] = {device->receive_.get(), device->transmit_.get()};
  TRY(device->transport_->ask_configuration(words));
  TRY(device->transport_->start(features, queues));
  TRY(device->transport_->finish_start());
  auto config = std::bit_cast<NetConfig>(words);

  Properties& properties = device->properties_;
  if (has(features, kNetFeatureMac)) {
    memcpy(properties.mac, config.mac, sizeof(properties.mac));
  } else {
    random_bytes(properties.mac, sizeof(properties.mac));
    properties.mac[0] = static_cast<u8>((properties.mac[0] & ~1) | 2);  // unicast, locally administered
  }
  if (has(features, kNetFeatureMtu)) properties.mtu = std::clamp(config.mtu, kMtuMin, kMtuMax);
  properties.checksum = has(features, kNetFeatureChecksum);
  properties.tcp4_segmentation = has(features, kNetFeatureHostTcp4);
  properties.tcp6_segmentation = has(features, kNetFeatureHostTcp6);
  if (has(features, kNetFeatureStatus) && (config.status & kNetLinkUp) == 0) log(LogLevel::warning, "network: the device says that its link is down");
  device->choose_buffers();
  (void)device->announce_received();
  return device;
}

Result<void> VirtioNet::make_queues(bool event_index) {
  u16 receive_size = queue_size(*transport_, kNetReceiveQueue), transmit_size = queue_size(*transport_, kNetTransmitQueue);
  if (receive_size == 0 || transmit_size < std::bit_ceil(kDescriptorsMost)) return Error(ENODEV);
  TRY(offered_.resize(receive_size));
  TRY(sent_.resize(transmit_size));
  receive_ = TRY(make_queue(receive_size, event_index));
  transmit_ = TRY(make_queue(transmit_size, event_index));
  return {};
}

// One buffer holds a frame; of merged packets, whole pages: four if segmented packets may come and memory allows, because each buffer costs
// both sides something. The device must always have enough for the largest (§5.1.6.3.1).
void VirtioNet::choose_buffers() {
  u32 frame = kHeaderSize + kFrameHeadersMax + properties_.mtu;
  u32 largest = frame;
  if (takes_tcp4_ || takes_tcp6_) {
    buffer_size_ = allows_buffers(kBuffersAtFirst, Buffer::kLargeRoom) ? Buffer::kLargeRoom : Buffer::kPageRoom;
    largest = std::max(kHeaderSize + kSizeMax, frame);
  } else if (frame <= Buffer::kSmall) {
    buffer_size_ = Buffer::kSmall;
  } else {
    buffer_size_ = merges_ ? Buffer::kPageRoom : frame;
  }
  receive_least_ = std::min<u32>(receive_->size(), std::max<u32>((largest + buffer_size_ - 1) / buffer_size_, 4));
  receive_target_ = std::min<u32>(receive_->size(), std::max<u32>(receive_least_ + kSpareBuffers, kBuffersAtFirst));
}

// --- receiving ---------------------------------------------------------------------------------------------------

// Gives the device buffers up to the target. What memory does not allow now is tried again by the next call.
void VirtioNet::refill() {
  while (receive_->in_flight() < receive_target_ && !receive_->broken()) {
    auto buffer = Buffer::create(buffer_size_);
    if (!buffer.ok() || !offer(std::move(*buffer))) break;
  }
  if (receive_->publish()) transport_->notify(kNetReceiveQueue);
}

bool VirtioNet::offer(Ref<Buffer> buffer) {
  virtio::QueueBuffer piece{mem::direct_to_phys(buffer->data()), buffer->capacity(), virtio::Direction::from_device};
  Result<u16> id = receive_->offer({&piece, 1});
  if (!id.ok()) return false;
  offered_[*id] = std::move(buffer);
  return true;
}

bool VirtioNet::take(Received* received) {
  virtio::UsedBuffer used;
  if (!receive_->take(&used)) return false;
  received->buffer = std::move(offered_[used.id]);
  received->size = used.length;
  ++consumed_;
  return true;
}

PacketPtr VirtioNet::receive() {
  if (stopped_) return {};
  Received first;
  do {
    while (take(&first)) {
      announced_ = false;
      if (receive_->in_flight() - receive_->unpublished() < static_cast<int>(receive_target_ / 2)) refill();
      if (PacketPtr packet = assemble(std::move(first))) return packet;
    }
    if (receive_->broken()) {
      check_queues();
      return {};
    }
  } while (announce_received());
  return {};
}

// More buffers do good if much of what the device had was used between two looks.
void VirtioNet::grow() {
  if (consumed_ > receive_target_ / 2) {
    u32 more = std::min<u32>({2 * receive_target_, receive_->size(), kReceiveBytesMax / buffer_size_});
    if (more > receive_target_ && allows_buffers(more, buffer_size_)) receive_target_ = more;
  }
  consumed_ = 0;
}

// The queue was found empty: a good time to make up for what was taken. True: it is not empty after all.
bool VirtioNet::announce_received() {
  if (announced_) return false;
  grow();
  refill();
  receive_->want_interrupt();
  announced_ = receive_->in_flight() >= receive_target_;  // else memory was short: refill() is tried again at the next look
  return receive_->has_used();
}

// Buffers that were taken may go up if the device is not left with too few, or there is memory for others.
bool VirtioNet::has_enough() {
  if (receive_->in_flight() < receive_least_) refill();
  return receive_->in_flight() >= receive_least_;
}

// Gives the buffer back to the device, and `more` that belong to it.
void VirtioNet::drop(Received& received, u32 more) {
  ++statistics_.dropped_received;
  for (;;) {
    (void)offer(std::move(received.buffer));
    if (more-- == 0 || !take(&received)) break;
  }
  if (receive_->publish()) transport_->notify(kNetReceiveQueue);
}

void VirtioNet::drop(Packet& packet) {
  ++statistics_.dropped_received;
  for (auto& slice : packet.slices()) (void)offer(std::move(slice.buffer));
  if (receive_->publish()) transport_->notify(kNetReceiveQueue);
}

// A small frame goes up in a copy, and the device keeps its buffer: a connection that waits for its reader shall not hold pages for some bytes.
void VirtioNet::copy_small(Received& part) {
  if (part.size > Buffer::kSmall || buffer_size_ <= Buffer::kSmall) return;
  auto copy = Buffer::create(Buffer::kSmall);
  if (!copy.ok()) return;
  memcpy((*copy)->data(), part.buffer->data(), part.size);
  (void)offer(std::move(part.buffer));
  part.buffer = std::move(*copy);
}

// The packet that begins in this buffer; null if it cannot be used.
PacketPtr VirtioNet::assemble(Received part) {
  NetHeader header;
  if (part.size < kHeaderSize) {
    ++statistics_.errors;
    drop(part, 0);
    return {};
  }
  memcpy(&header, part.buffer->data(), sizeof(header));
  u32 more = merges_ && header.buffer_count > 0 ? header.buffer_count - u32{1} : 0;
  if (more >= Packet::kSlicesMax) {
    ++statistics_.errors;
    drop(part, more);
    return {};
  }
  auto made = Packet::create();
  if (!made.ok()) {
    drop(part, more);
    return {};
  }
  PacketPtr packet = std::move(*made);
  if (more == 0) copy_small(part);
  u32 offset = kHeaderSize;
  for (;; --more) {
    if (part.size > offset) (void)packet->append({std::move(part.buffer), offset, part.size - offset}).ok();
    if (more == 0) break;
    offset = 0;
    if (!take(&part)) {  // §5.1.6.4.1: they come all at once
      ++statistics_.errors;
      return {};
    }
  }
  if (!has_enough()) {
    drop(*packet);
    return {};
  }
  if (packet->size() < kEthernetSize || !describe(*packet, header)) {
    ++statistics_.errors;
    return {};
  }
  ++statistics_.packets_received;
  statistics_.bytes_received += packet->size();
  return packet;
}

// What the header says of the packet (§5.1.6.4.2). False: it cannot be true.
bool VirtioNet::describe(Packet& packet, const NetHeader& header) {
  if ((header.flags & kNetNeedsChecksum) != 0) {
    if (!takes_partial_ || u32{header.checksum_start} + header.checksum_offset + sizeof(u16) > packet.size()) return false;
    packet.checksum = Checksum::partial;
    packet.checksum_start = header.checksum_start;
    packet.checksum_offset = header.checksum_offset;
  } else if ((header.flags & kNetDataValid) != 0 && takes_partial_) {
    packet.checksum = Checksum::verified;
  }
  u8 kind = header.segmentation & static_cast<u8>(~kNetSegmentEcn);
  if (kind == kNetSegmentNone) return true;
  bool tcp4 = kind == kNetSegmentTcp4 && takes_tcp4_, tcp6 = kind == kNetSegmentTcp6 && takes_tcp6_;
  if ((!tcp4 && !tcp6) || header.segment_size == 0) return false;
  packet.segmentation = tcp4 ? Segmentation::tcp4 : Segmentation::tcp6;
  packet.segment_size = header.segment_size;
  return true;
}

// --- sending -----------------------------------------------------------------------------------------------------

bool VirtioNet::transmit(PacketPtr& packet) {
  if (stopped_) {
    ++statistics_.dropped_sent;
    packet.reset();
    return true;
  }
  if (sent_bytes_ >= kReclaimBytes || sent_count_ >= kReclaimPackets || transmit_->free_descriptors() < kDescriptorsMost) reclaim();
  if (transmit_->free_descriptors() < packet->slices().size() + 1) {
    refuse();
    return false;
  }
  u32 frame_size = packet->size();
  if (!prepare(*packet)) {
    ++statistics_.dropped_sent;
    packet.reset();
    return true;
  }
  virtio::QueueBuffer chain[Packet::kSlicesMax];
  u32 count = 0;
  for (const auto& slice : packet->slices())
    if (slice.size != 0) chain[count++] = {mem::direct_to_phys(slice.data()), slice.size, virtio::Direction::to_device};
  Result<u16> id = transmit_->offer({chain, count});
  if (!id.ok()) {  // broken
    check_queues();
    ++statistics_.dropped_sent;
    packet.reset();
    return true;
  }
  ++statistics_.packets_sent;
  statistics_.bytes_sent += frame_size;
  ++sent_count_;
  sent_bytes_ += packet->size();
  sent_[*id] = std::move(packet);
  sched::expect_events();  // an answer
  return true;
}

// The device's header goes in front of the packet's own, into the same memory if there is room.
bool VirtioNet::prepare(Packet& packet) {
  NetHeader header = {};
  if (packet.checksum == Checksum::partial) {
    header.flags = kNetNeedsChecksum;
    header.checksum_start = packet.checksum_start;
    header.checksum_offset = packet.checksum_offset;
  }
  if (packet.segmentation != Segmentation::none) {
    header.segmentation = packet.segmentation == Segmentation::tcp4 ? kNetSegmentTcp4 : kNetSegmentTcp6;
    header.segment_size = packet.segment_size;
    header.header_size = packet.header_size;
  }
  auto room = packet.push_front(kHeaderSize);
  if (!room.ok()) return false;
  memcpy(*room, &header, sizeof(header));
  return true;
}

// Full: an interrupt when half of it is done. The owner waits for room_again().
void VirtioNet::refuse() {
  refused_ = true;
  flush();
  transmit_->want_interrupt(static_cast<u16>((sent_count_ + 1) / 2));
}

void VirtioNet::flush() {
  if (transmit_->publish()) transport_->notify(kNetTransmitQueue);
}

bool VirtioNet::room_again() {
  if (!refused_) return false;
  while (!stopped_ && transmit_->free_descriptors() < std::max<u32>(kDescriptorsMost, transmit_->size() / 4)) {
    if (!transmit_->has_used()) return false;
    reclaim();
    if (sent_count_ > 0) transmit_->want_interrupt(static_cast<u16>((sent_count_ + 1) / 2));
  }
  refused_ = false;
  transmit_->want_no_interrupt();
  return true;
}

void VirtioNet::reclaim() {
  virtio::UsedBuffer used;
  while (transmit_->take(&used)) {
    PacketPtr packet = std::move(sent_[used.id]);
    sent_bytes_ -= packet->size();
    --sent_count_;
  }
  if (!refused_) transmit_->want_no_interrupt();  // it does not last for ever
  if (transmit_->broken()) check_queues();
}

// A broken queue: what is in flight stays allocated, because the device may still use it.
void VirtioNet::check_queues() {
  if (stopped_ || (!receive_->broken() && !transmit_->broken())) return;
  stopped_ = true;
  transport_->stop();
  log(LogLevel::error, "network: the device returned a buffer that it was not given; stopped");
}

}  // namespace husk::drivers
