// See tests/net/lan.h.
#include "tests/net/lan.h"

#include <algorithm>

#include "tests/net/nic.h"
#include "wire/ethernet.h"

namespace husk::simulation {

packet::PacketPtr Port::receive() {
  if (received_.empty()) return nullptr;
  Frame frame = std::move(received_.front());
  received_.pop_front();
  ++statistics_.packets_received;
  statistics_.bytes_received += frame.bytes.size();
  return packet_of(frame, offloads_.slice);
}

void Port::release_ring() const {
  while (!leaving_.empty() && leaving_.front() <= lan_.now_ns()) leaving_.pop_front();
}

// What the device does not do must not be asked of it.
const char* Port::violation(const packet::Packet& packet) const {
  u32 size = packet.size();
  if (size < sizeof(wire::EthernetHeader)) return "a packet without an ethernet header";
  if (packet.checksum == packet::Checksum::partial && !offloads_.checksum) return "a partial checksum for a device that computes none";
  if (packet.checksum == packet::Checksum::partial && u32{packet.checksum_start} + packet.checksum_offset + 2 > size)
    return "a checksum outside the packet";
  if (packet.segmentation == packet::Segmentation::none)
    return size > properties_.mtu + sizeof(wire::EthernetHeader) ? "a frame larger than the MTU" : nullptr;
  if (!offloads_.segmentation) return "a packet to be cut for a device that does not";
  if (packet.checksum != packet::Checksum::partial || packet.header_size >= size || packet.checksum_start >= packet.header_size)
    return "wrong segmentation";
  if (packet.segment_size == 0 || packet.header_size + packet.segment_size > properties_.mtu + sizeof(wire::EthernetHeader))
    return "segments larger than the MTU";
  return size > properties_.segmentation_max ? "more than segmentation_max" : nullptr;
}

bool Port::transmit(packet::PacketPtr& packet) {
  release_ring();
  if (ring_.size() + leaving_.size() >= conditions.ring) {
    refused_ = true;
    return false;
  }
  if (const char* wrong = violation(*packet); wrong != nullptr) {
    if (lan_.violation == nullptr) lan_.violation = wrong;
    packet.reset();
    return true;
  }
  ++statistics_.packets_sent;
  statistics_.bytes_sent += packet->size();
  ring_.push_back(frame_of(*packet));
  packet.reset();
  return true;
}

void Port::flush() {
  while (!ring_.empty()) {
    Frame frame = std::move(ring_.front());
    ring_.pop_front();
    if (offloads_.merged) {
      put_on_line(std::move(frame));
    } else {
      for (Frame& piece : cut(frame)) put_on_line(std::move(piece));
    }
    leaving_.push_back(line_free_ns_);
  }
}

bool Port::room_again() {
  release_ring();
  if (!refused_ || ring_.size() + leaving_.size() >= conditions.ring) return false;
  refused_ = false;
  return true;
}

u64 Port::next_event_ns() const { return refused_ && !leaving_.empty() && leaving_.front() > lan_.now_ns() ? leaving_.front() : kNever; }

void Port::put_on_line(Frame frame) {
  Random& random = lan_.random_;
  u64 now = lan_.now_ns();
  line_free_ns_ = std::max(line_free_ns_, now);
  if (frame.checksum != packet::Checksum::partial) frame.checksum = packet::Checksum::unknown;
  ++line_frames;
  line_bytes += frame.bytes.size();
  u64 queued = (line_free_ns_ - now) * conditions.bits_per_second / 8 / kSecond;
  if (!plugged || queued + frame.bytes.size() > conditions.queue_bytes) {
    ++lost;
    return;
  }
  line_free_ns_ += (frame.bytes.size() + 24) * 8 * kSecond / conditions.bits_per_second;  // preamble, checksum and gap
  if (random.chance(conditions.loss)) {
    ++lost;
    return;
  }
  auto* ethernet = wire::view_at<wire::EthernetHeader>(frame.bytes);
  if (random.chance(conditions.corrupt) && ethernet != nullptr && ethernet->type != wire::kEtherTypeArp &&
      frame.checksum == packet::Checksum::unknown) {
    frame.bytes[random.below(frame.bytes.size())] ^= static_cast<u8>(1u << random.below(8));
  }
  u64 arrival = std::max(line_free_ns_ + conditions.delay_ns + random.below(conditions.jitter_ns + 1), last_arrival_ns_);
  last_arrival_ns_ = arrival;
  if (random.chance(conditions.reorder)) arrival += random.below(conditions.reorder_ns);
  auto shared = std::make_shared<Frame>(std::move(frame));
  lan_.events_.push({arrival, lan_.order_++, this, shared});
  if (random.chance(conditions.duplicate)) lan_.events_.push({arrival + random.below(conditions.reorder_ns), lan_.order_++, this, shared});
}

Port& Lan::add_port(u16 mtu, Offloads offloads, const Conditions& conditions) {
  packet::NetDevice::Properties properties;
  const u8 mac[6] = {0x02, 0x68, 0x75, 0x73, 0x6b, static_cast<u8>(ports_.size() + 1)};
  memcpy(properties.mac, mac, 6);
  properties.mtu = mtu;
  properties.checksum = offloads.checksum;
  properties.tcp4_segmentation = properties.tcp6_segmentation = offloads.segmentation;
  ports_.emplace_back(new Port(*this, properties, offloads));
  ports_.back()->conditions = conditions;
  return *ports_.back();
}

u64 Lan::next_event_ns() const {
  u64 next = events_.empty() ? kNever : events_.top().at_ns;
  for (const auto& port : ports_) {
    next = std::min(next, port->next_event_ns());
    if (!port->received_.empty()) next = now_ns_;
  }
  return next;
}

void Lan::advance(u64 to_ns) {
  HUSK_ASSERT(to_ns >= now_ns_);
  now_ns_ = to_ns;
  while (!events_.empty() && events_.top().at_ns <= now_ns_) {
    Event event = events_.top();
    events_.pop();
    deliver(event.from, *event.frame);
  }
}

void Lan::deliver(Port* from, const Frame& frame) {
  auto* header = wire::view_at<wire::EthernetHeader>(frame.bytes);
  if (header == nullptr) return;
  for (const auto& port : ports_) {
    if (port.get() == from || !port->plugged) continue;
    if ((header->destination[0] & 1) == 0 && memcmp(header->destination, port->properties_.mac, 6) != 0) continue;
    if (tap != nullptr) tap(tap_context, *port, frame);
    if (port->offloads_.checksum) {
      port->received_.push_back(frame);
    } else {
      for (Frame& piece : cut(frame)) port->received_.push_back(std::move(piece));
    }
  }
}

}  // namespace husk::simulation
