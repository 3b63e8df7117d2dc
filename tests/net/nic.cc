// See tests/net/nic.h.
#include "tests/net/nic.h"

#include <algorithm>

#include "wire/checksum.h"
#include "wire/ethernet.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/tcp.h"

namespace husk::simulation {

using packet::Checksum;
using packet::Packet;
using packet::Segmentation;

Frame frame_of(const Packet& packet) {
  Frame frame;
  frame.bytes.resize(packet.size());
  packet.copy_out(0, frame.bytes.data(), packet.size());
  frame.checksum = packet.checksum, frame.segmentation = packet.segmentation;
  frame.checksum_start = packet.checksum_start, frame.checksum_offset = packet.checksum_offset;
  frame.segment_size = packet.segment_size, frame.header_size = packet.header_size;
  return frame;
}

packet::PacketPtr packet_of(const Frame& frame, u32 slice) {
  auto made = Packet::create();
  HUSK_ASSERT(made.ok());
  packet::PacketPtr packet = made.release();
  u32 size = static_cast<u32>(frame.bytes.size());
  u32 least = size / (Packet::kSlicesMax - 1) + 1;
  if (slice == 0) slice = size <= packet::Buffer::kSizeMax ? size : least;
  slice = std::max(slice, least);
  for (u32 at = 0; at < size;) {
    // The headers are in the first one (packet.h).
    u32 step = std::min(size - at, at == 0 ? std::max(slice, 256u) : slice);
    auto buffer = packet::Buffer::create(step);
    HUSK_ASSERT(buffer.ok());
    memcpy((*buffer)->data(), &frame.bytes[at], step);
    HUSK_ASSERT(packet->append({buffer.release(), 0, step}).ok());
    at += step;
  }
  packet->checksum = frame.checksum, packet->segmentation = frame.segmentation;
  packet->checksum_start = frame.checksum_start, packet->checksum_offset = frame.checksum_offset;
  packet->segment_size = frame.segment_size, packet->header_size = frame.header_size;
  return packet;
}

void complete(Frame* frame) {
  if (frame->checksum != Checksum::partial) return;
  HUSK_ASSERT(u64{frame->checksum_start} + frame->checksum_offset + 2 <= frame->bytes.size());
  wire::Checksum sum;
  sum.add(std::span(frame->bytes).subspan(frame->checksum_start));  // the field holds the pseudo header's
  wire::Be16 result = sum.finish_udp();
  memcpy(&frame->bytes[frame->checksum_start + frame->checksum_offset], &result, 2);
  frame->checksum = Checksum::unknown;
}

namespace {

constexpr u32 kEthernet = sizeof(wire::EthernetHeader);
constexpr u8 kFin = 1, kPsh = 8, kCwr = 128;

// Lengths, numbers and checksums of one piece, whose headers are a copy of the whole packet's.
void mend_headers(Bytes& bytes, u32 transport, u32 index, u32 offset, bool last) {
  auto* tcp = reinterpret_cast<wire::TcpHeader*>(&bytes[transport]);
  tcp->sequence = tcp->sequence + offset;
  if (!last) tcp->flags &= static_cast<u8>(~(kFin | kPsh));
  if (index != 0) tcp->flags &= static_cast<u8>(~kCwr);
  tcp->checksum = 0;
  u32 length = static_cast<u32>(bytes.size()) - transport;
  wire::Checksum sum;
  if (bytes[kEthernet] >> 4 == 4) {
    auto* ip = reinterpret_cast<wire::Ipv4Header*>(&bytes[kEthernet]);
    ip->total_size = static_cast<u16>(bytes.size() - kEthernet);
    ip->identification = static_cast<u16>(ip->identification + index);
    ip->checksum = 0;
    ip->checksum = wire::checksum_of({&bytes[kEthernet], transport - kEthernet});
    sum.add_pseudo_v4(ip->source, ip->destination, wire::kProtocolTcp, length);
  } else {
    auto* ip = reinterpret_cast<wire::Ipv6Header*>(&bytes[kEthernet]);
    ip->payload_size = static_cast<u16>(bytes.size() - kEthernet - sizeof(*ip));
    sum.add_pseudo_v6(ip->source, ip->destination, wire::kProtocolTcp, length);
  }
  sum.add(std::span(bytes).subspan(transport));
  tcp->checksum = sum.finish();
}

}  // namespace

std::vector<Frame> cut(const Frame& frame) {
  std::vector<Frame> pieces;
  if (frame.segmentation == Segmentation::none) {
    pieces.push_back(frame);
    complete(&pieces.back());
    return pieces;
  }
  u32 size = static_cast<u32>(frame.bytes.size()), header = frame.header_size;
  HUSK_ASSERT(frame.checksum == Checksum::partial && frame.segment_size > 0 && header < size && frame.checksum_start < header);
  for (u32 at = header, index = 0; at < size; ++index) {
    u32 step = std::min<u32>(size - at, frame.segment_size);
    Frame piece;
    piece.bytes.assign(frame.bytes.begin(), frame.bytes.begin() + header);
    piece.bytes.insert(piece.bytes.end(), frame.bytes.begin() + at, frame.bytes.begin() + at + step);
    mend_headers(piece.bytes, frame.checksum_start, index, at - header, at + step == size);
    pieces.push_back(std::move(piece));
    at += step;
  }
  return pieces;
}

}  // namespace husk::simulation
