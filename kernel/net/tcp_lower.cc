// What TCP stands on (tcp::Lower): segments to packets and back; checksums and segmentation by the device or here. RFC 9293 §3.1.
// Runs for every segment.
#include <algorithm>

#include "kernel/net/stack_state.h"
#include "wire/tcp.h"

namespace husk::net {

using packet::Checksum;
using packet::Packet;
using packet::PacketPtr;
using tcp::Segment;

namespace {

constexpr u32 kTcpHeader = sizeof(wire::TcpHeader), kHeadersMax = 60 + kTcpHeader + wire::kTcpOptionsMax;

Segment decode(const wire::Tcp& tcp, u32 payload_size) {
  const wire::TcpHeader& header = *tcp.header;
  Segment segment;
  segment.seq = {header.sequence};
  segment.ack = {header.acknowledgement};
  segment.flags = header.flags;
  segment.window = header.window;
  segment.urgent_pointer = header.urgent_pointer;
  segment.payload_size = payload_size;
  if (tcp.options.empty()) return segment;
  if (tcp.options.size() == 12 && wire::load_be32(tcp.options.data()) == 0x0101080a) {  // RFC 7323 appendix A: what nearly all segments have
    segment.has_timestamps = true;
    segment.timestamp_value = wire::load_be32(&tcp.options[4]);
    segment.timestamp_echo = wire::load_be32(&tcp.options[8]);
    return segment;
  }
  wire::TcpOptions options = tcp.parse_options();
  segment.mss = options.mss;
  segment.window_scale = options.window_scale;
  segment.sack_permitted = options.sack_permitted;
  segment.has_timestamps = options.has_timestamps;
  segment.timestamp_value = options.timestamp_value;
  segment.timestamp_echo = options.timestamp_echo;
  segment.sack_count = options.sack_count;
  for (u32 i = 0; i < options.sack_count; ++i) segment.sack[i] = {{options.sack[i].first}, {options.sack[i].end}};
  return segment;
}

u32 encode_options(const Segment& segment, std::span<u8> out) {
  if (segment.mss == 0 && segment.window_scale < 0 && !segment.sack_permitted && segment.sack_count == 0) {
    if (!segment.has_timestamps) return 0;
    wire::store_be32(&out[0], 0x0101080a);
    wire::store_be32(&out[4], segment.timestamp_value);
    wire::store_be32(&out[8], segment.timestamp_echo);
    return 12;
  }
  wire::TcpOptions options;
  options.mss = segment.mss;
  options.window_scale = segment.window_scale;
  options.sack_permitted = segment.sack_permitted;
  options.has_timestamps = segment.has_timestamps;
  options.timestamp_value = segment.timestamp_value;
  options.timestamp_echo = segment.timestamp_echo;
  options.sack_count = segment.sack_count;
  for (u32 i = 0; i < segment.sack_count; ++i) options.sack[i] = {segment.sack[i].first.value, segment.sack[i].end.value};
  return static_cast<u32>(wire::build_tcp_options(options, out));
}

}  // namespace

wire::Checksum StackState::pseudo_header(const IpAddress& source, const IpAddress& destination, u8 protocol, u32 length) {
  wire::Checksum sum;
  if (destination.is_v4()) {
    sum.add_pseudo_v4(source.v4_bytes(), destination.v4_bytes(), protocol, length);
  } else {
    sum.add_pseudo_v6(source.bytes, destination.bytes, protocol, length);
  }
  return sum;
}

void StackState::add_bytes(wire::Checksum& sum, const Packet& packet, u32 from) {
  for (const packet::Slice& slice : packet.slices()) {
    if (from >= slice.size) {
      from -= slice.size;
      continue;
    }
    sum.add({slice.data() + from, slice.size - from});
    from = 0;
  }
}

void StackState::tcp_input(const Received& received, PacketPtr packet) {
  u32 at = received.transport;
  auto malformed = [&] { ++statistics_.in_discards; };
  if (received.group || !packet->pull_up(at + kTcpHeader)) return malformed();  // RFC 1122 §4.2.3.10: never to a group
  u32 header_size = (packet->head()[at + 12] >> 4) * 4u;
  if (header_size > kTcpHeader && !packet->pull_up(at + header_size)) return malformed();
  auto parsed = wire::Tcp::parse(packet->head().subspan(at));
  if (!parsed) return malformed();
  u32 length = packet->size() - at;
  if (packet->checksum == Checksum::unknown) {
    wire::Checksum sum = pseudo_header(received.source, received.destination, wire::kProtocolTcp, length);
    add_bytes(sum, *packet, at);
    if (!sum.valid()) {
      ++statistics_.checksum_errors;
      return;
    }
  }
  Segment segment = decode(*parsed, length - header_size);
  u32 index = received.interface.index;
  // The interface is told always; TCP knows where it matters (link-local addresses, SO_BINDTODEVICE).
  Flow flow{{received.destination, parsed->header->destination_port, index}, {received.source, parsed->header->source_port, index}};
  u32 pieces = 1;
  if (packet->segment_size != 0 && segment.payload_size > packet->segment_size) {
    pieces = (segment.payload_size + packet->segment_size - 1) / packet->segment_size;
  }
  ++statistics_.in_delivers;
  if (segment.payload_size == 0) {
    packet.reset();
  } else {
    packet->trim_front(at + header_size);
  }
  tcp_->input(flow, segment, std::move(packet), pieces);
}

Result<tcp::Lower::Route> StackState::route(const Endpoint& remote, const IpAddress& bound) {
  if (!bound.is_any() && !is_local(bound)) return Error(EADDRNOTAVAIL);
  Destination& to = *TRY(destination(remote.address, remote.interface));
  if (to.reach != Reach::unicast) return Error(ENETUNREACH);
  const auto& properties = to.interface->device.properties();
  // Also without the device's help: one packet for many segments is cut at the last moment.
  u32 most = std::min<u32>(properties.segmentation_max, 65535) - kEthernetSize - kHeadersMax;
  return tcp::Lower::Route{bound.is_any() ? to.source : bound, to.path_mtu, most};
}

void StackState::output(const Flow& flow, const Segment& segment, PacketPtr payload, u16 segment_size, u8 traffic_class, u8 hop_limit) {
  auto found = destination(flow.remote.address, flow.remote.interface);
  if (!payload) payload = Packet::create(0).value_or(nullptr);
  if (!found.ok() || (*found)->reach != Reach::unicast || !payload) {
    ++statistics_.out_discards;
    return;
  }
  Destination& to = **found;
  IpFields fields{wire::kProtocolTcp, hop_limit != 0 ? hop_limit : kHopLimit, traffic_class};
  if (segment_size == 0 || segment.payload_size <= segment_size) return send_segment(to, flow, segment, std::move(payload), 0, fields);
  const auto& properties = to.interface->device.properties();
  bool offload = to.remote.is_v4() ? properties.tcp4_segmentation : properties.tcp6_segmentation;
  if (offload) return send_segment(to, flow, segment, std::move(payload), segment_size, fields);

  for (u32 offset = 0; offset < segment.payload_size; offset += segment_size) {
    Segment piece = segment;
    piece.seq += offset;
    piece.payload_size = std::min<u32>(segment_size, segment.payload_size - offset);
    if (offset + piece.payload_size < segment.payload_size) piece.flags &= static_cast<u8>(~(tcp::kFin | tcp::kPsh));
    if (offset != 0) piece.flags &= static_cast<u8>(~tcp::kCwr);  // RFC 3168 §6.1.2: once
    auto part = part_of(*payload, offset, piece.payload_size);
    if (!part.ok()) {
      ++statistics_.out_discards;
      return;
    }
    send_segment(to, flow, piece, part.release(), 0, fields);
  }
}

void StackState::send_segment(Destination& to, const Flow& flow, const Segment& segment, PacketPtr packet, u16 segment_size, const IpFields& fields) {
  u8 options[wire::kTcpOptionsMax];
  // SACK blocks that would make the segment larger than the path's MTU stay out (RFC 6691 §3 would have TCP send less).
  u32 fixed = (to.remote.is_v4() ? 20u : 40u) + kTcpHeader + (segment_size != 0 ? segment_size : segment.payload_size);
  u32 most = segment.sack_count != 0 && fixed <= to.path_mtu ? std::min<u32>(to.path_mtu - fixed, sizeof(options)) : sizeof(options);
  u32 options_size = encode_options(segment, std::span(options).first(most)), header_size = kTcpHeader + options_size;
  auto room = packet->push_front(header_size);
  if (!room.ok()) {
    ++statistics_.out_discards;
    return;
  }
  auto& header = *reinterpret_cast<wire::TcpHeader*>(*room);
  header = {flow.local.port,
            flow.remote.port,
            segment.seq.value,
            segment.ack.value,
            static_cast<u8>(header_size / 4 << 4),
            segment.flags,
            segment.window,
            0,
            segment.urgent_pointer};
  memcpy(*room + kTcpHeader, options, options_size);

  const auto& properties = to.interface->device.properties();
  wire::Checksum sum = pseudo_header(flow.local.address, flow.remote.address, wire::kProtocolTcp, packet->size());
  packet->segment_size = segment_size;
  packet->segmentation = segment_size == 0             ? packet::Segmentation::none
                         : flow.remote.address.is_v4() ? packet::Segmentation::tcp4
                                                       : packet::Segmentation::tcp6;
  packet->header_size = static_cast<u16>(header_size);
  if (properties.checksum || segment_size != 0) {
    header.checksum = sum.folded();
    packet->checksum = Checksum::partial;
    packet->checksum_start = 0;
    packet->checksum_offset = offsetof(wire::TcpHeader, checksum);
  } else {
    add_bytes(sum, *packet, 0);
    header.checksum = sum.finish();
    packet->checksum = Checksum::complete;
  }
  if (!push_ip(to, flow.local.address, fields, 0, wire::kIpv4DontFragment, *packet)) {
    ++statistics_.out_discards;
    return;
  }
  send_link(to, std::move(packet));
}

}  // namespace husk::net
