// See vmm/devices/net.h.
#include "vmm/devices/net.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

#include <algorithm>
#include <utility>

namespace husk::vmm {

namespace virtio = abi::virtio;
using virtio::feature_bit;
using virtio::NetHeader;

namespace {

constexpr u64 kEthernetHeader = 14, kEthernetMost = 18;  // the latter with a VLAN tag
constexpr size_t kVectorsMax = 512;                      // guest buffers in one system call
constexpr u64 kAnswerTimeNs = 30 * 1000;                 // that a program may take for an answer
constexpr u32 kImpatienceMax = 6;
constexpr u64 kSegmentingFeatures = feature_bit(virtio::kNetFeatureGuestTcp4) | feature_bit(virtio::kNetFeatureGuestTcp6);

u64 now_ns() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<u64>(time.tv_sec) * 1000000000 + static_cast<u64>(time.tv_nsec);
}

}  // namespace

NetDevice::NetDevice(Link link) : Device("net", virtio::DeviceId::net, virtio::kNetQueueCount), link_(std::move(link)), overflow_(kFrameMax + 1) {
  memcpy(config_.mac, link_.mac, sizeof(config_.mac));
  config_.status = virtio::kNetLinkUp;
  config_.queue_pairs_max = 1;
  config_.mtu = link_.mtu;
}

u64 NetDevice::features() const {
  u64 features = feature_bit(virtio::kNetFeatureMac) | feature_bit(virtio::kNetFeatureMtu) | feature_bit(virtio::kNetFeatureStatus) |
                 feature_bit(virtio::kNetFeatureMergeableBuffers) | feature_bit(virtio::kNetFeatureGuestChecksum);
  if (link_.vnet_header) {
    features |= feature_bit(virtio::kNetFeatureChecksum) | feature_bit(virtio::kNetFeatureHostTcp4) | feature_bit(virtio::kNetFeatureHostTcp6) |
                kSegmentingFeatures;
  }
  return features;
}

void NetDevice::start(u64 accepted_features) {
  accepted_ = accepted_features;
  // §5.1.3.1: segmentation needs checksums.
  if (!accepted(virtio::kNetFeatureGuestChecksum)) accepted_ &= ~kSegmentingFeatures;
  if (!accepted(virtio::kNetFeatureChecksum)) accepted_ &= ~(feature_bit(virtio::kNetFeatureHostTcp4) | feature_bit(virtio::kNetFeatureHostTcp6));
  frame_max_ = (accepted_ & kSegmentingFeatures) != 0 ? kFrameMax : link_.mtu + kEthernetMost;
  link_.accepted(accepted_);
}

void NetDevice::reset() {
  held_.clear();
  room_ = frame_size_ = placed_ = answer_by_ns_ = 0;
  sending_ = false;
  handed_before_reset_ = handed_.are_out();
  if (!handed_before_reset_) handed_.clear();
}

bool NetDevice::process() {
  if (!driver_ok || !error().empty()) return false;
  if (polled_) {  // answers first: they make more work for the next step
    bool more = transmit();
    return receive() || more;
  }
  u64 received = counters_.received;
  bool again = receive();
  if (counters_.received != received) expect_answer();
  return transmit() || again;
}

// A guest that was given a frame and runs will soon answer. To wait for that awake saves a doorbell, and putting this thread to sleep and waking it, which
// costs several times what a frame does. Every time in vain makes it less likely to be tried: up to once in 64 deliveries.
void NetDevice::expect_answer() {
  if (deliveries_to_skip_ > 0) --deliveries_to_skip_;
  else answer_by_ns_ = now_ns() + kAnswerTimeNs;
}

bool NetDevice::awaits_answer() {
  if (answer_by_ns_ == 0) return false;
  if (now_ns() < answer_by_ns_) return true;
  answer_by_ns_ = 0;
  if (impatience_ < kImpatienceMax) ++impatience_;
  deliveries_to_skip_ = (1u << impatience_) - 1;
  return false;
}

// The frame in vectors_, behind the header.
void NetDevice::show(u64 frame_size) {
  if (!link_.capture) return;
  size_t count = 1;
  for (; count < vectors_.size() && frame_size > 0; ++count) {
    vectors_[count].iov_len = std::min<u64>(vectors_[count].iov_len, frame_size);
    frame_size -= vectors_[count].iov_len;
  }
  link_.capture(std::span(vectors_).subspan(1, count - 1));
}

// --- from the guest ----------------------------------------------------------------------------------------

bool NetDevice::transmit() {
  if (!take_back()) return false;  // another thread writes: these come later
  Virtqueue& queue = queues[virtio::kNetTransmitQueue];
  queue.suppress_doorbells();
  bool again = true;
  for (u32 count = 0; count < kFramesPerRound; ++count) {
    if (!sending_ && !queue.pop(&outgoing_)) {
      if (!polled_ && awaits_answer()) break;
      if (!polled_ && queue.await_doorbell()) continue;
      again = false;
      break;
    }
    if (!send_outgoing()) {
      again = false;
      break;
    }
  }
  notify_if_wanted(queue);
  return again;
}

// False: it waits for room in the descriptor, or the driver broke the rules.
bool NetDevice::send_outgoing() {
  sending_ = true;
  if (answer_by_ns_ != 0) answer_by_ns_ = impatience_ = 0;
  if (send(outgoing_) == Sent::later) return false;
  sending_ = false;
  if (!error().empty()) return false;
  queues[virtio::kNetTransmitQueue].push(outgoing_.head, 0);
  return true;
}

// The header into header_, the frame's parts into vectors_ behind it. False: the driver broke the rules.
bool NetDevice::split(const Chain& chain) {
  if (!chain.writable.empty()) return fail("net: a frame to send has room to be written to"), false;
  if (chain.readable_size < sizeof(NetHeader)) return fail("net: a frame to send is shorter than its header"), false;
  u64 copied = 0;
  vectors_.assign(1, {&header_, sizeof(header_)});
  for (const iovec& part : chain.readable) {
    u64 head = std::min<u64>(part.iov_len, sizeof(NetHeader) - copied);
    memcpy(reinterpret_cast<u8*>(&header_) + copied, part.iov_base, head);
    copied += head;
    if (part.iov_len > head) vectors_.push_back({static_cast<u8*>(part.iov_base) + head, part.iov_len - head});
  }
  return true;
}

// Leaves in the header only what was negotiated and agrees with the frame's size: the descriptor's other side may be less careful.
bool NetDevice::is_sendable(NetHeader& header, u64 frame_size) const {
  if (frame_size < kEthernetHeader || frame_size > kFrameMax) return false;
  NetHeader clean{};
  if ((header.flags & virtio::kNetNeedsChecksum) != 0) {
    u64 field = u64{header.checksum_start} + header.checksum_offset;
    if (!accepted(virtio::kNetFeatureChecksum) || header.checksum_start < kEthernetHeader || field + sizeof(u16) > frame_size) return false;
    clean.flags = virtio::kNetNeedsChecksum;
    clean.checksum_start = header.checksum_start;
    clean.checksum_offset = header.checksum_offset;
  }
  if (header.segmentation == virtio::kNetSegmentNone) {
    header = clean;
    return frame_size <= link_.mtu + kEthernetMost;
  }
  constexpr u16 kTcpChecksum = 16, kTcpHeader = 20;
  bool v4 = header.segmentation == virtio::kNetSegmentTcp4 && accepted(virtio::kNetFeatureHostTcp4);
  bool v6 = header.segmentation == virtio::kNetSegmentTcp6 && accepted(virtio::kNetFeatureHostTcp6);
  if ((!v4 && !v6) || clean.flags == 0 || header.checksum_offset != kTcpChecksum || header.segment_size == 0) return false;
  if (header.header_size < header.checksum_start + kTcpHeader || header.header_size > frame_size) return false;
  clean.segmentation = header.segmentation;
  clean.segment_size = header.segment_size;
  clean.header_size = header.header_size;
  header = clean;
  return true;
}

// The header and the frame's parts into header_ and vectors_. False: it was dropped, or the driver broke the rules.
bool NetDevice::prepare(const Chain& chain) {
  if (!split(chain)) return false;
  if (!closed_ && vectors_.size() <= kVectorsMax && is_sendable(header_, chain.readable_size - sizeof(NetHeader))) return true;
  ++counters_.dropped_sent;
  return false;
}

ssize_t NetDevice::write_frame(std::span<const iovec> parts) const {
  if (!link_.vnet_header) parts = parts.subspan(1);
  ssize_t result;
  do {
    result = writev(link_.fd, parts.data(), static_cast<int>(parts.size()));
  } while (result < 0 && errno == EINTR);
  return result;
}

NetDevice::Sent NetDevice::send(const Chain& chain) {
  if (!prepare(chain)) return Sent::done;
  if (!writable_) return Sent::later;
  ssize_t result = write_frame(vectors_);
  if (result < 0 && errno == EAGAIN) {
    writable_ = false;
    return Sent::later;
  }
  if (result < 0) {  // the interface is down, or its kernel did not like the frame
    closed_ |= errno == EPIPE || errno == ECONNRESET;
    ++counters_.dropped_sent;
    return Sent::done;
  }
  u64 frame_size = chain.readable_size - sizeof(NetHeader);
  ++counters_.sent;
  metrics_.bytes_out += frame_size;
  show(frame_size);
  return Sent::done;
}

bool NetDevice::hand_over(u32 least, u32 most) {
  if (!driver_ok || !error().empty() || sending_ || !writable_ || !take_back()) return false;
  Virtqueue& queue = queues[virtio::kNetTransmitQueue];
  u32 waiting = std::min(queue.available(), kFramesPerRound);
  if (waiting < least) return false;
  for (; waiting > most; --waiting) {
    if (!queue.pop(&outgoing_) || !send_outgoing()) return false;
  }
  notify_if_wanted(queue);
  for (; waiting > 0 && queue.pop(&outgoing_); --waiting) {
    if (!prepare(outgoing_)) {
      if (!error().empty()) return false;
      queue.push(outgoing_.head, 0);
      continue;
    }
    HandedFrame& frame = handed_.add();
    frame.head = outgoing_.head;
    frame.size = outgoing_.readable_size - sizeof(NetHeader);
    frame.header = header_;
    frame.parts = vectors_;
    show(frame.size);
  }
  if (handed_.frames().empty()) return false;
  handed_.send_out();
  return true;
}

size_t NetDevice::write_handed() {
  return handed_.write_all([this](HandedFrame& frame) {
    frame.parts[0].iov_base = &frame.header;
    frame.sent = write_frame(frame.parts) >= 0;
  });
}

// False: they are still out.
bool NetDevice::take_back() {
  if (handed_.are_out()) return false;
  if (handed_.frames().empty()) return true;
  Virtqueue& queue = queues[virtio::kNetTransmitQueue];
  for (const HandedFrame& frame : handed_.frames()) {
    ++(frame.sent ? counters_.sent : counters_.dropped_sent);
    if (frame.sent) metrics_.bytes_out += frame.size;
    if (!handed_before_reset_) queue.push(frame.head, 0);
  }
  handed_.clear();
  handed_before_reset_ = false;
  notify_if_wanted(queue);
  return true;
}

// --- to the guest ------------------------------------------------------------------------------------------

bool NetDevice::receive() {
  Virtqueue& queue = queues[virtio::kNetReceiveQueue];
  queue.suppress_doorbells();
  bool again = true;
  for (u32 count = 0; count < kFramesPerRound; ++count) {
    if (frame_size_ == 0 && (!readable_ || closed_)) {
      again = false;
      break;
    }
    take_chains();
    if (!error().empty()) return false;
    bool room = !held_.empty();
    if (room && frame_size_ == 0 && !read_frame()) continue;
    if (room && deliver()) continue;
    if (!polled_ && queue.await_doorbell()) continue;
    again = false;
    break;
  }
  notify_if_wanted(queue);
  return again;
}

void NetDevice::take_chains() {
  bool mergeable = accepted(virtio::kNetFeatureMergeableBuffers);
  u64 wanted = sizeof(NetHeader) + std::max(frame_max_, frame_size_);
  while (mergeable ? room_ < wanted : held_.empty()) {
    Chain chain;
    if (!spare_.empty()) {
      chain = std::move(spare_.back());
      spare_.pop_back();
    }
    if (!queues[virtio::kNetReceiveQueue].pop(&chain)) {
      spare_.push_back(std::move(chain));
      return;
    }
    if (!chain.readable.empty()) return fail("net: a receive buffer has something to read");
    if (chain.writable_size < sizeof(NetHeader)) return fail("net: a receive buffer is smaller than the header");
    ++metrics_.requests;
    room_ += chain.writable_size;
    held_.push_back(std::move(chain));
  }
}

// The header and the held chains' room behind it into vectors_; the bytes of that room.
u64 NetDevice::collect_room() {
  vectors_.assign(1, {&header_, sizeof(header_)});
  u64 skip = sizeof(NetHeader), room = 0;
  for (const Chain& chain : held_) {
    for (const iovec& part : chain.writable) {
      u64 skipped = std::min<u64>(skip, part.iov_len);
      skip -= skipped;
      if (part.iov_len == skipped) continue;
      if (vectors_.size() == kVectorsMax) return room;
      vectors_.push_back({static_cast<u8*>(part.iov_base) + skipped, part.iov_len - skipped});
      room += part.iov_len - skipped;
    }
  }
  return room;
}

// One frame into the held chains, leaving room for the header, and the rest into overflow_. False: there is none, or it was dropped.
bool NetDevice::read_frame() {
  placed_ = collect_room();
  vectors_.push_back({overflow_.data(), overflow_.size()});
  std::span<const iovec> parts = std::span(vectors_).subspan(link_.vnet_header ? 0 : 1);
  ssize_t result;
  do {
    result = readv(link_.fd, parts.data(), static_cast<int>(parts.size()));
  } while (result < 0 && errno == EINTR);
  if (result <= 0) {
    readable_ = false;
    if (result == 0) {
      closed_ = true;
      config_.status = 0;
    }
    return false;
  }
  u64 header = link_.vnet_header ? sizeof(header_) : 0, size = static_cast<u64>(result);
  if (size < header + kEthernetHeader || !is_receivable(header_, size - header)) {
    ++counters_.dropped_received;
    return false;
  }
  frame_size_ = size - header;
  return true;
}

bool NetDevice::is_receivable(NetHeader& header, u64 frame_size) const {
  bool checksums = accepted(virtio::kNetFeatureGuestChecksum);
  if (!link_.vnet_header) {
    header = {};
    header.flags = checksums ? virtio::kNetDataValid : 0;  // it never left this host
  }
  // Frames from before the driver said what it takes.
  if (!checksums && (header.flags & virtio::kNetNeedsChecksum) != 0) return false;
  if (header.segmentation == virtio::kNetSegmentTcp4 && !accepted(virtio::kNetFeatureGuestTcp4)) return false;
  if (header.segmentation == virtio::kNetSegmentTcp6 && !accepted(virtio::kNetFeatureGuestTcp6)) return false;
  if (!checksums) header.flags = 0;
  return frame_size <= frame_max_;
}

// Not if a frame is one chain, nor if all that the guest can offer is here.
bool NetDevice::can_wait_for_room() const {
  if (!accepted(virtio::kNetFeatureMergeableBuffers)) return false;
  size_t descriptors = 0;
  for (const Chain& chain : held_) descriptors += chain.writable.size();
  return descriptors < queues[virtio::kNetReceiveQueue].size();
}

// False: the frame has to wait until the guest offers more room.
bool NetDevice::deliver() {
  Virtqueue& queue = queues[virtio::kNetReceiveQueue];
  u64 total = sizeof(NetHeader) + frame_size_;
  if (room_ < total && can_wait_for_room()) return false;
  u64 frame_size = std::exchange(frame_size_, 0);
  if (room_ < total) {
    ++counters_.dropped_received;
    return true;
  }
  if (frame_size > placed_) scatter(sizeof(NetHeader) + placed_, {overflow_.data(), frame_size - placed_});
  if (link_.capture) {
    collect_room();
    show(frame_size);
  }
  u64 left = total;
  u16 chains = 0;
  for (; left > 0; ++chains) left -= std::min(left, held_[chains].writable_size);
  header_.buffer_count = chains;
  scatter(0, {reinterpret_cast<const u8*>(&header_), sizeof(header_)});
  for (; chains > 0; --chains) {
    Chain& chain = held_.front();
    u64 part = std::min(total, chain.writable_size);
    total -= part;
    room_ -= chain.writable_size;
    queue.stage(chain.head, static_cast<u32>(part));
    spare_.push_back(std::move(chain));
    held_.pop_front();
  }
  queue.publish();
  ++counters_.received;
  metrics_.bytes_in += frame_size;
  return true;
}

// Into the held chains, `offset` bytes behind their start.
void NetDevice::scatter(u64 offset, std::span<const u8> bytes) {
  for (const Chain& chain : held_) {
    for (const iovec& part : chain.writable) {
      u64 skipped = std::min<u64>(offset, part.iov_len);
      offset -= skipped;
      u64 count = std::min<u64>(part.iov_len - skipped, bytes.size());
      if (count > 0) memcpy(static_cast<u8*>(part.iov_base) + skipped, bytes.data(), count);
      bytes = bytes.subspan(count);
      if (bytes.empty()) return;
    }
  }
}

}  // namespace husk::vmm
