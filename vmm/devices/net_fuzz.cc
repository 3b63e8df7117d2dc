// A network driver made of the fuzzer's bytes, and frames made of them from outside.
//
// Input: {u8 variant}, then commands of {u8 what, u8 size, u16 place, u32 value}. The rings and the first descriptors are set up properly, so that
// lies get deep; guest memory and registers may then be written in any order. No buffer may leave guest memory and nothing may hang.
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#include "host/file_descriptor.h"
#include "vmm/devices/fake_guest.h"
#include "vmm/devices/mmio_transport.h"
#include "vmm/devices/net.h"

namespace {

using namespace husk;
using namespace husk::vmm;
using namespace husk::abi::virtio;

struct Command {
  u8 what, size;
  u16 place;
  u32 value;
};

void set_up(MmioTransport& transport, const vmm::testing::FakeGuest& guest, u32 index) {
  auto set = [&](u64 offset, u64 value) { transport.store(offset, 4, static_cast<u32>(value)); };
  set(kMmioQueueSelect, index);
  set(kMmioQueueSize, guest.layout.size);
  set(kMmioQueueDescriptorsLow, guest.layout.descriptors);
  set(kMmioQueueAvailableLow, guest.layout.available);
  set(kMmioQueueUsedLow, guest.layout.used);
  set(kMmioQueueReady, 1);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, size_t size) {
  if (size == 0) return 0;
  signal(SIGPIPE, SIG_IGN);
  u8 variant = data[0];
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, fds) != 0) return 0;
  host::FileDescriptor inside(fds[0]), outside(fds[1]);
  GuestMemory memory;
  vmm::testing::FakeGuest::add_memory(memory);
  u64 seen = 0;
  NetDevice::Link link;
  link.fd = inside.get();
  link.vnet_header = (variant & 1) != 0;
  link.capture = [&seen](std::span<const iovec> parts) {
    for (const iovec& part : parts) seen += part.iov_len;
  };
  NetDevice device(link);
  MmioTransport transport(device, memory, [] {});
  u64 features = device.features() | feature_bit(kFeatureVersion1) | feature_bit(kFeatureEventIndex);
  if ((variant & 2) != 0) features &= ~feature_bit(kNetFeatureMergeableBuffers);
  if ((variant & 4) != 0) features &= ~feature_bit(kNetFeatureGuestChecksum);
  for (u32 half = 0; half < 2; ++half) {
    transport.store(kMmioDriverFeaturesSelect, 4, half);
    transport.store(kMmioDriverFeatures, 4, static_cast<u32>(features >> (32 * half)));
  }
  vmm::testing::FakeGuest queues[2] = {vmm::testing::FakeGuest(0, 8), vmm::testing::FakeGuest(0x4000, 8)};
  for (u32 i = 0; i < 2; ++i) set_up(transport, queues[i], i);
  transport.store(kMmioStatus, 4, kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk | kStatusDriverOk);
  for (size_t at = 1; size - at >= sizeof(Command); at += sizeof(Command)) {
    Command command;
    memcpy(&command, data + at, sizeof(command));
    auto& queue = queues[command.what >> 7];
    u16 flags = static_cast<u16>((command.what >> 7 ? 0 : kDescriptorWrite) | (command.size & 8 ? kDescriptorNext : 0));
    switch (command.what % 8) {
      case 0: transport.store(command.place % 0x110, command.size == 0 ? 4 : command.size, command.value); break;
      case 1: (void)transport.load(command.place % 0x200, command.size == 0 ? 4 : command.size % 16); break;
      case 2: {
        auto bytes = memory.writable({command.place}, 4);
        if (!bytes.empty()) memcpy(bytes.data(), &command.value, 4);
        break;
      }
      case 3: queue.descriptor(memory, command.size % 8, command.place, command.value, flags, command.size >> 4); break;
      case 4: queue.offer(memory, command.size); break;
      case 5: {  // a frame from outside, of bytes that come next
        size_t length = std::min<size_t>(command.value % 70000, size - at);
        (void)!write(outside.get(), data + at, length);
        device.set_ready(true, false);
        break;
      }
      case 6: {
        static u8 sink[1 << 17];
        (void)!read(outside.get(), sink, sizeof(sink));
        device.set_ready(false, true);
        break;
      }
      default:
        if ((command.size & 1) != 0) (void)device.hand_over(1, command.size >> 2);
        if ((command.size & 2) != 0) device.write_handed();
        device.process();
        (void)device.unheeded();
    }
  }
  device.process();
  return 0;
}
