// A network device made of the fuzzer's bytes, under a driver that must survive it.
//
// Input: {u8 features}, then commands of {u8 what, u8 amount, u16 place, u32 value}. Honest deliveries and lies in any order; whatever the driver
// hands up must lie in memory that it owns and agree with itself. Ends with the device, not with the driver.
#include "kernel/drivers/virtio_net.h"

#include <sanitizer/asan_interface.h>

#include "base/panic.h"
#include "kernel/drivers/fake_kernel_test.h"

namespace {

using namespace husk;
using namespace husk::abi::virtio;
using drivers::DeviceQueue;
using packet::Checksum;
using packet::Packet;
using packet::PacketPtr;

struct Command {
  u8 what, amount;
  u16 place;
  u32 value;
};

// A device that gave a chain back before it took it would write to memory that is the driver's own again: no driver can help that.
bool lent(const Descriptor& part) { return __asan_region_is_poisoned(reinterpret_cast<void*>(part.address), part.length) == nullptr; }

struct Machine {
  explicit Machine(u8 choice) {
    auto made = std::make_unique<drivers::FakeTransport>();
    transport = made.get();
    constexpr u32 kChosen[] = {kNetFeatureChecksum,  kNetFeatureGuestChecksum,    kNetFeatureMtu,     kNetFeatureGuestTcp4,
                               kNetFeatureGuestTcp6, kNetFeatureMergeableBuffers, kFeatureEventIndex, kNetFeatureHostTcp4};
    transport->offered = feature_bit(kFeatureVersion1);
    for (u32 i = 0; i < 8; ++i)
      if ((choice >> i & 1) != 0) transport->offered |= feature_bit(kChosen[i]);
    transport->configuration = {0x00000002, 0x00010300, u32{choice} << 21 | 1};
    net = drivers::VirtioNet::create(std::move(made)).value();
    queues.emplace_back(transport->queues[kNetReceiveQueue]);
    queues.emplace_back(transport->queues[kNetTransmitQueue]);
  }
  ~Machine() {
    no_memory = false;
    net.reset();
    mem::free_queue_memory();
  }
  // A frame of `size` bytes whose header is what `value` makes of it.
  void deliver(u32 size, u32 value, u32 count_lie) {
    NetHeader header{static_cast<u8>(value & 3),           static_cast<u8>(value >> 2 & 0x87), 54, static_cast<u16>(value >> 8),
                     static_cast<u16>(value >> 16 & 0xff), static_cast<u16>(value >> 24),      0};
    std::vector<std::pair<DeviceQueue::Chain, u32>> parts;
    for (u32 left = size + static_cast<u32>(sizeof(header)); left > 0;) {
      DeviceQueue::Chain chain;
      if (!queues[kNetReceiveQueue].next(&chain) || !lent(chain.parts[0])) break;
      u32 step = std::min(left, chain.parts[0].length);
      memset(reinterpret_cast<void*>(chain.parts[0].address), 0x5a, step);
      parts.push_back({chain, step});
      left -= step;
    }
    if (parts.empty()) return;
    header.buffer_count = static_cast<u16>(parts.size() + count_lie);
    memcpy(reinterpret_cast<void*>(parts[0].first.parts[0].address), &header, sizeof(header));
    for (auto& [chain, length] : parts) queues[kNetReceiveQueue].finish(chain.id, length);
  }
  void receive() {
    while (PacketPtr packet = net->receive()) {
      HUSK_ASSERT(packet->size() >= 14 && packet->slices().size() <= Packet::kSlicesMax);
      std::vector<u8> bytes(packet->size());
      packet->copy_out(0, bytes.data(), packet->size());
      if (packet->checksum == Checksum::partial) HUSK_ASSERT(u32{packet->checksum_start} + packet->checksum_offset + 2 <= packet->size());
      HUSK_ASSERT((packet->segmentation == packet::Segmentation::none) == (packet->segment_size == 0));
      kept.push_back(std::move(packet));
      if (kept.size() > 40) kept.clear();
    }
  }
  void send(u32 size, bool shared) {
    auto packet = Packet::create(size);
    if (!packet.ok()) return;
    PacketPtr copy;
    if (shared)
      if (auto clone = (*packet)->clone(); clone.ok()) copy = std::move(*clone);
    if (net->transmit(*packet)) net->flush();
    if (copy) kept.push_back(std::move(copy));
  }
  void finish_sent(u32 count) {
    for (DeviceQueue::Chain chain; count > 0 && queues[kNetTransmitQueue].next(&chain); --count) {
      for (auto& part : chain.parts) HUSK_ASSERT(part.length > 0);
      queues[kNetTransmitQueue].finish(chain.id, 0);
    }
  }

  drivers::FakeTransport* transport = nullptr;
  Owned<drivers::VirtioNet> net;
  std::vector<DeviceQueue> queues;
  std::vector<PacketPtr> kept;  // by the stack
};

void run(Machine& machine, const Command& command) {
  switch (command.what % 10) {
    case 0: return machine.deliver(command.place, command.value, 0);
    case 1: return machine.deliver(command.amount, command.value, command.place);
    case 2: return machine.queues[command.amount % 2].finish(command.place, command.value);
    case 3: machine.queues[command.amount % 2].used()->index = command.place; return;
    case 4: return machine.receive();
    case 5: return machine.send(command.place, command.amount % 2 != 0);
    case 6: return machine.finish_sent(command.amount);
    case 7: (void)machine.net->prepare_to_sleep(); return;
    case 8: (void)machine.net->room_again(); return;
    default: no_memory = !no_memory; return;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, size_t size) {
  if (size == 0) return 0;
  Machine machine(data[0]);
  for (size_t at = 1; at + sizeof(Command) <= size; at += sizeof(Command)) {
    Command command;
    memcpy(&command, data + at, sizeof(command));
    run(machine, command);
  }
  machine.receive();
  return 0;
}
