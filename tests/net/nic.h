// What a network device does when it is asked to compute checksums or to cut large TCP packets (virtio 1.2 §5.1.6.2), in plain bytes.
#pragma once

#include "tests/net/lan.h"

namespace husk::simulation {

Frame frame_of(const packet::Packet& packet);
packet::PacketPtr packet_of(const Frame& frame, u32 slice);
// Fills in a partial checksum.
void complete(Frame* frame);
// Frames with at most segment_size payload bytes each and all checksums; one if it is not to be cut.
std::vector<Frame> cut(const Frame& frame);

}  // namespace husk::simulation
