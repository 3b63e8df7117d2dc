// virtio network device (virtio 1.2 §5.1), one pair of queues: 0 receives, 1 transmits. Every packet has a NetHeader before it.
#pragma once

#include "base/types.h"

namespace husk::abi::virtio {

constexpr u32 kNetReceiveQueue = 0;
constexpr u32 kNetTransmitQueue = 1;
constexpr u32 kNetQueueCount = 2;

// Feature bit numbers (§5.1.3).
enum NetFeature : u32 {
  kNetFeatureChecksum = 0,       // the device completes partial checksums
  kNetFeatureGuestChecksum = 1,  // the driver takes packets with partial checksums
  kNetFeatureMtu = 3,
  kNetFeatureMac = 5,
  kNetFeatureGuestTcp4 = 7,  // the driver takes merged TCP packets
  kNetFeatureGuestTcp6 = 8,
  kNetFeatureHostTcp4 = 11,  // the device segments
  kNetFeatureHostTcp6 = 12,
  kNetFeatureMergeableBuffers = 15,
  kNetFeatureStatus = 16,
};

struct NetConfig {  // §5.1.4
  u8 mac[6];
  u16 status;
  u16 queue_pairs_max;
  u16 mtu;
};
static_assert(sizeof(NetConfig) == 12);
constexpr u16 kNetLinkUp = 1;

enum NetHeaderFlags : u8 { kNetNeedsChecksum = 1, kNetDataValid = 2 };
enum NetSegmentation : u8 { kNetSegmentNone = 0, kNetSegmentTcp4 = 1, kNetSegmentUdp = 3, kNetSegmentTcp6 = 4, kNetSegmentEcn = 0x80 };

struct NetHeader {  // §5.1.6; the last field exists with VERSION_1 always
  u8 flags;
  u8 segmentation;
  u16 header_size;
  u16 segment_size;
  u16 checksum_start, checksum_offset;
  u16 buffer_count;  // received, with mergeable buffers: how many chains hold this packet
};
static_assert(sizeof(NetHeader) == 12);

}  // namespace husk::abi::virtio
