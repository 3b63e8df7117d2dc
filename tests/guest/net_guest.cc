// A micro-guest that answers ARP and echoes UDP, straight on its network device: what the monitor's part of a round trip costs, and whether any
// wake-up is ever lost. net_test runs it behind a TAP interface.
//
// The boot configuration's `program` is "POLL FRAMES": it looks for frames for so many TSC ticks before it parks, and powers off after so many
// datagrams. It answers whoever asks, whatever address is asked for.
#include "abi/boot_config.h"
#include "abi/boot_info.h"
#include "abi/monitor_device.h"
#include "abi/nub_abi.h"
#include "abi/virtio/mmio.h"
#include "abi/virtio/net.h"
#include "abi/virtio/queue.h"

using namespace husk;
using namespace husk::abi;

namespace {

constexpr u32 kNetwork = 1 + 4;  // the window behind the monitor's, three consoles and the entropy device
constexpr u16 kSize = 64;        // buffers, and entries of each queue; buffer i is descriptor i of both
constexpr u64 kBufferSize = 2048;
constexpr u32 kFailed = 50;

const BootInfo* info;

u64 window(u32 index) { return info->windows[index].virtual_address; }
void store32(u64 address, u64 value) { *reinterpret_cast<volatile u32*>(address) = static_cast<u32>(value); }
u32 load32(u64 address) { return *reinterpret_cast<volatile u32*>(address); }
u64 tsc() {
  u32 low, high;
  asm volatile("rdtsc" : "=a"(low), "=d"(high));
  return u64{high} << 32 | low;
}
[[noreturn]] void finish(u32 status) {
  store32(window(0) + kMonitorPowerOff, status);
  for (;;) {}
}
u64 arena() { return align_up(info->free_ranges[0].start, kPageSize); }
u64 buffer(u16 id) { return arena() + 8 * kPageSize + id * kBufferSize; }
u8* direct(u64 physical) { return reinterpret_cast<u8*>(info->direct_base + physical); }
u16 load16(u64 physical) { return __atomic_load_n(reinterpret_cast<u16*>(direct(physical)), __ATOMIC_SEQ_CST); }
void store16(u64 physical, u16 value) { __atomic_store_n(reinterpret_cast<u16*>(direct(physical)), value, __ATOMIC_SEQ_CST); }

struct Queue {
  u32 index;
  u16 offered = 0, taken = 0, rung = 0;
  u64 descriptors() const { return arena() + (index * 3 + 0) * kPageSize; }
  u64 available() const { return arena() + (index * 3 + 1) * kPageSize; }
  u64 used() const { return arena() + (index * 3 + 2) * kPageSize; }

  void set_up() {
    u64 device = window(kNetwork);
    store32(device + virtio::kMmioQueueSelect, index);
    store32(device + virtio::kMmioQueueSize, kSize);
    store32(device + virtio::kMmioQueueDescriptorsLow, descriptors());
    store32(device + virtio::kMmioQueueAvailableLow, available());
    store32(device + virtio::kMmioQueueUsedLow, used());
    store32(device + virtio::kMmioQueueReady, 1);
  }
  void offer(u16 id, u32 size, u16 flags) {
    *reinterpret_cast<virtio::Descriptor*>(direct(descriptors()) + id * sizeof(virtio::Descriptor)) = {buffer(id), size, flags, 0};
    store16(available() + 4 + 2 * (offered % kSize), id);
    store16(available() + 2, ++offered);
  }
  void ring_if_wanted() {
    u16 event = load16(used() + virtio::available_event_offset(kSize));
    if (virtio::event_is_due(event, offered, rung)) store32(window(kNetwork) + virtio::kMmioQueueNotify, index);
    rung = offered;
  }
  bool take(virtio::UsedElement* element) {
    if (load16(used() + 2) == taken) return false;
    *element = *reinterpret_cast<virtio::UsedElement*>(direct(used()) + 4 + (taken % kSize) * sizeof(virtio::UsedElement));
    if (element->id >= kSize) finish(kFailed);
    ++taken;
    return true;
  }
  // True: there is something after all.
  bool announce() {
    store16(available() + virtio::used_event_offset(kSize), taken);
    return load16(used() + 2) != taken;
  }
};
Queue receive{virtio::kNetReceiveQueue}, transmit{virtio::kNetTransmitQueue};

void start() {
  u64 device = window(kNetwork);
  if (info->window_count <= kNetwork || load32(device + virtio::kMmioDeviceId) != static_cast<u32>(virtio::DeviceId::net)) finish(kFailed);
  store32(device + virtio::kMmioStatus, virtio::kStatusAcknowledge | virtio::kStatusDriver);
  u64 features = virtio::feature_bit(virtio::kFeatureVersion1) | virtio::feature_bit(virtio::kFeatureEventIndex) |
                 virtio::feature_bit(virtio::kNetFeatureMac) | virtio::feature_bit(virtio::kNetFeatureMergeableBuffers);
  for (u32 half = 0; half < 2; ++half) {
    store32(device + virtio::kMmioDriverFeaturesSelect, half);
    store32(device + virtio::kMmioDriverFeatures, features >> (32 * half));
  }
  u32 status = virtio::kStatusAcknowledge | virtio::kStatusDriver | virtio::kStatusFeaturesOk;
  store32(device + virtio::kMmioStatus, status);
  receive.set_up();
  transmit.set_up();
  for (u16 id = 0; id < kSize; ++id) receive.offer(id, kBufferSize, virtio::kDescriptorWrite);
  store32(device + virtio::kMmioStatus, status | virtio::kStatusDriverOk);
}

void swap(u8* one, u8* other, u32 size) {
  for (u32 i = 0; i < size; ++i) {
    u8 byte = one[i];
    one[i] = other[i];
    other[i] = byte;
  }
}
enum class Answer { none, arp, datagram };
// The answer takes the question's place: neither an IP nor a UDP checksum changes when addresses and ports are exchanged.
Answer answer(u8* frame, u32 size) {
  if (size < 42) return Answer::none;
  bool arp = frame[12] == 8 && frame[13] == 6 && frame[21] == 1;
  bool udp = frame[12] == 8 && frame[13] == 0 && frame[14] == 0x45 && frame[23] == 17;
  if (!arp && !udp) return Answer::none;
  swap(frame, frame + 6, 6);
  u8* mac = direct(arena() + 7 * kPageSize);
  for (u32 i = 0; i < 6; ++i) frame[6 + i] = mac[i];
  if (udp) {
    swap(frame + 26, frame + 30, 4);
    swap(frame + 34, frame + 36, 2);
    return Answer::datagram;
  }
  frame[21] = 2;
  swap(frame + 22, frame + 32, 10);
  for (u32 i = 0; i < 6; ++i) frame[22 + i] = mac[i];
  return Answer::arp;
}

void run(u64 poll_ticks, u64 frames) {
  start();
  // One that never polls takes the monitor's offer to serve it while it is parked.
  if (poll_ticks == 0) reinterpret_cast<MonitorPage*>(info->monitor_page)->parks_at_once = 1;
  u8* mac = direct(arena() + 7 * kPageSize);
  for (u32 i = 0; i < 6; ++i) mac[i] = *reinterpret_cast<volatile u8*>(window(kNetwork) + virtio::kMmioConfig + i);
  u64 idle_since = tsc();
  while (frames > 0) {
    virtio::UsedElement element;
    bool any = false;
    while (receive.take(&element)) {
      any = true;
      u16 id = static_cast<u16>(element.id);
      u8* packet = direct(buffer(id));
      Answer kind = answer(packet + sizeof(virtio::NetHeader), element.length - static_cast<u32>(sizeof(virtio::NetHeader)));
      if (kind == Answer::datagram) --frames;
      for (u32 i = 0; i < sizeof(virtio::NetHeader); ++i) packet[i] = 0;
      if (kind == Answer::none) receive.offer(id, kBufferSize, virtio::kDescriptorWrite);
      else transmit.offer(id, element.length, 0);
    }
    if (any) transmit.ring_if_wanted();
    while (transmit.take(&element)) receive.offer(static_cast<u16>(element.id), kBufferSize, virtio::kDescriptorWrite);
    receive.ring_if_wanted();
    if (any) idle_since = tsc();
    if (any || tsc() - idle_since < poll_ticks) continue;
    bool more = receive.announce();
    if (transmit.taken != transmit.offered) more |= transmit.announce();
    if (more) continue;
    store32(window(0) + kMonitorPark, 1);
    idle_since = tsc();
  }
  while (transmit.taken != transmit.offered) {
    virtio::UsedElement element;
    (void)transmit.take(&element);
  }
  finish(0);
}

u64 take_number(std::string_view& text) {
  u64 value = 0;
  while (!text.empty() && text[0] >= '0' && text[0] <= '9') {
    value = value * 10 + static_cast<u64>(text[0] - '0');
    text.remove_prefix(1);
  }
  if (!text.empty()) text.remove_prefix(1);
  return value;
}

}  // namespace

extern "C" void guest_upcall() { finish(kFailed + 1); }

extern "C" void guest_main(const BootInfo* boot_info) {
  info = boot_info;
  ConfigReader reader({reinterpret_cast<const u8*>(info->config_base), info->config_size});
  while (auto record = reader.next()) {
    if (record->tag != ConfigTag::program) continue;
    std::string_view text = record->text();
    u64 poll = take_number(text);
    run(poll, take_number(text));
  }
  finish(kFailed);
}
