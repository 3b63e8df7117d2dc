// The hostile micro-guest: a ring-3 kernel that lies to the monitor instead of the nub. hostile_test runs it under the real vmm::Monitor.
//
// The boot configuration's `program` is "MODE SEED"; equal seeds do equal things. Whatever it does, the monitor must live on and end this guest
// only: with 125 and a line that says why, or with the status that the guest gives when it has done its worst.
#include "abi/boot_config.h"
#include "abi/boot_info.h"
#include "abi/machine_state.h"
#include "abi/monitor_device.h"
#include "abi/nub_abi.h"
#include "abi/virtio/console.h"
#include "abi/virtio/mmio.h"
#include "abi/virtio/queue.h"

using namespace husk;
using namespace husk::abi;

namespace {

constexpr u32 kSurvived = 42, kNoSuchMode = 43, kFaulted = 44, kReached = 45;

const BootInfo* info;
u64 random_state;

u64 random() {  // splitmix64
  u64 z = random_state += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}
u64 below(u64 limit) { return random() % limit; }
bool chance(u64 of) { return below(of) == 0; }

u64 tsc() {
  u32 low, high;
  asm volatile("rdtsc" : "=a"(low), "=d"(high));
  return u64{high} << 32 | low;
}
volatile MonitorPage& monitor_page() { return *reinterpret_cast<volatile MonitorPage*>(info->monitor_page); }
u64 window(u32 index) { return info->windows[index].virtual_address; }
// The monitor reads memory during it, and writes to it.
void store32(u64 address, u64 value) {
  asm volatile("" : : : "memory");
  *reinterpret_cast<volatile u32*>(address) = static_cast<u32>(value);
  asm volatile("" : : : "memory");
}
u32 load32(u64 address) { return *reinterpret_cast<volatile u32*>(address); }
[[noreturn]] void finish(u32 status) {
  store32(window(0) + kMonitorPowerOff, status);
  for (;;) {}
}
template <typename T>
T& direct(u64 physical) {
  return *reinterpret_cast<T*>(info->direct_base + physical);
}

// 1 MiB of RAM that the nub and this guest do not use: rings, descriptors and buffers lie here.
u64 arena() { return info->free_ranges[0].start; }
constexpr u64 kArena = kMiB;

u64 any_address() {
  switch (below(8)) {
    case 0: return random();
    case 1: return info->ram_size - below(3) * 16;
    case 2: return kMonitorImageAddress + below(info->image_size + kPageSize);
    case 3: return kMonitorDeviceAddress + below(8) * 1024;
    case 4: return ~u64{0} - below(64);
    default: return arena() + below(kArena);
  }
}
u64 any_value() {
  switch (below(5)) {
    case 0: return random();
    case 1: return random() >> below(64);
    case 2: return u64{1} << below(64);
    case 3: return any_address();
    default: return below(16);
  }
}

const u32 kRegisters[] = {virtio::kMmioDeviceFeaturesSelect,
                          virtio::kMmioDriverFeatures,
                          virtio::kMmioDriverFeaturesSelect,
                          virtio::kMmioQueueSelect,
                          virtio::kMmioQueueSize,
                          virtio::kMmioQueueReady,
                          virtio::kMmioQueueNotify,
                          virtio::kMmioInterruptAcknowledge,
                          virtio::kMmioStatus,
                          virtio::kMmioQueueDescriptorsLow,
                          virtio::kMmioQueueDescriptorsHigh,
                          virtio::kMmioQueueAvailableLow,
                          virtio::kMmioQueueAvailableHigh,
                          virtio::kMmioQueueUsedLow,
                          virtio::kMmioQueueUsedHigh,
                          virtio::kMmioConfig};

void access(u64 address, u64 value) {
  bool write = !chance(4);
  switch (below(8)) {
    case 0: {
      auto* at = reinterpret_cast<volatile u8*>(address);
      if (write) *at = static_cast<u8>(value);
      else (void)*at;
      return;
    }
    case 1: {
      auto* at = reinterpret_cast<volatile u16*>(address);
      if (write) *at = static_cast<u16>(value);
      else (void)*at;
      return;
    }
    case 2: {
      auto* at = reinterpret_cast<volatile u64*>(address);
      if (write) *at = value;
      else (void)*at;
      return;
    }
    default:
      if (write) store32(address, value);
      else load32(address);
  }
}

// A deadline, so that parking ends. The power-off register is the one that is not touched.
void monitor_register() {
  u64 deadline = chance(2) ? any_value() : 0;
  monitor_page().timer_deadline = deadline;
  monitor_page().park_deadline = deadline;
  u64 offset = chance(2) ? below(kPageSize / 8) * 8 : below(6) * 8;
  if (offset == kMonitorPowerOff) offset = kMonitorTimer;
  if (offset == kMonitorPark) monitor_page().park_deadline = tsc() + below(100000);
  access(window(0) + offset, any_value());
}

void registers() {
  for (int i = 0; i < 1500; ++i) {
    if (chance(8)) monitor_register();
    u64 base = window(1 + static_cast<u32>(below(info->window_count - 1)));
    bool known = !chance(6);
    access(base + (known ? kRegisters[below(sizeof(kRegisters) / sizeof(u32))] : below(kPageSize - 8)), any_value());
    if (chance(20)) store32(base + virtio::kMmioStatus, 0);
  }
}
// Only the monitor device: nothing here may end the guest.
void monitor_registers() {
  for (int i = 0; i < 2000; ++i) monitor_register();
}

struct Queue {
  u64 device, descriptors, available, used;
  u32 index, size;
};
Queue queues[9];
u32 device_count() { return info->window_count - 1; }  // consoles, entropy, network

// As a driver should, into the arena: a page each for descriptors, available ring and used ring.
void set_up(Queue& queue, u32 device, u32 index, u64 place) {
  queue = {window(1 + device), place, place + kPageSize, place + 2 * kPageSize, index, u32{1} << below(8)};
  store32(queue.device + virtio::kMmioQueueSelect, index);
  store32(queue.device + virtio::kMmioQueueSize, queue.size);
  store32(queue.device + virtio::kMmioQueueDescriptorsLow, queue.descriptors);
  store32(queue.device + virtio::kMmioQueueAvailableLow, queue.available);
  store32(queue.device + virtio::kMmioQueueUsedLow, queue.used);
  store32(queue.device + virtio::kMmioQueueReady, 1);
}
void start(u32 device) {
  u64 base = window(1 + device);
  store32(base + virtio::kMmioStatus, virtio::kStatusAcknowledge | virtio::kStatusDriver);
  for (u32 half = 0; half < 2; ++half) {
    store32(base + virtio::kMmioDeviceFeaturesSelect, half);
    store32(base + virtio::kMmioDriverFeaturesSelect, half);
    store32(base + virtio::kMmioDriverFeatures, load32(base + virtio::kMmioDeviceFeatures));
  }
  store32(base + virtio::kMmioStatus, virtio::kStatusAcknowledge | virtio::kStatusDriver | virtio::kStatusFeaturesOk);
}
void run_device(u32 device) {
  store32(window(1 + device) + virtio::kMmioStatus,
          virtio::kStatusAcknowledge | virtio::kStatusDriver | virtio::kStatusFeaturesOk | virtio::kStatusDriverOk);
}
u32 set_up_all() {
  u32 count = 0;
  for (u32 device = 0; device < device_count(); ++device) {
    start(device);
    for (u32 index = 0; index < (device == 3 ? 1 : 2); ++index, ++count) set_up(queues[count], device, index, arena() + count * 4 * kPageSize);
    run_device(device);
  }
  return count;
}
void ring(const Queue& queue) { store32(queue.device + virtio::kMmioQueueNotify, queue.index); }

// `worst` is how bad a descriptor may be: 0 wild, else mostly right, so that the device goes on and the lies get deeper.
void random_descriptor(const Queue& queue, u64 slot, u64 worst) {
  bool wild = worst == 0 || chance(worst);
  auto& descriptor = direct<virtio::Descriptor>(queue.descriptors + slot * sizeof(virtio::Descriptor));
  bool to_guest = queue.index == virtio::kConsoleReceiveQueue;
  descriptor.address = wild ? any_address() : arena() + below(kArena / 2);  // rings and descriptors are in there, too
  descriptor.length = static_cast<u32>(wild ? any_value() : 1 + below(kPageSize));
  descriptor.flags = static_cast<u16>(wild ? random() : (to_guest ? virtio::kDescriptorWrite : 0) | (chance(3) ? virtio::kDescriptorNext : 0));
  descriptor.next = static_cast<u16>(wild ? random() : below(queue.size));
}
void rings(u64 worst) {
  u32 count = set_up_all();
  for (int i = 0; i < 400; ++i) {
    const Queue& queue = queues[below(count)];
    for (u64 n = below(8); n > 0; --n) random_descriptor(queue, below(queue.size), worst);
    auto* ring_index = &direct<volatile u16>(queue.available + 2);
    u16 heads = static_cast<u16>(1 + below(chance(20) ? 70000 : 3));
    for (u64 n = 0; n < 4; ++n) {
      u64 slot = (*ring_index + n) % queue.size;
      direct<volatile u16>(queue.available + 4 + 2 * slot) = static_cast<u16>(chance(50) ? random() : below(queue.size));
    }
    if (worst == 0 || !chance(worst)) *ring_index = static_cast<u16>(*ring_index + heads);
    else *ring_index = static_cast<u16>(random());
    ring(queue);
    if (chance(30)) access(queue.device + kRegisters[below(sizeof(kRegisters) / sizeof(u32))], any_value());
    if (chance(10)) {
      monitor_page().park_deadline = tsc() + below(200000);
      store32(window(0) + kMonitorPark, 1);  // the other thread gets its turn
    }
  }
}

// Buffers in and around the queue's own rings, while the guest goes on writing there.
void self_modifying_rings() {
  u32 count = set_up_all();
  for (int i = 0; i < 300; ++i) {
    const Queue& queue = queues[below(count)];
    for (u64 slot = 0; slot < queue.size; ++slot) {
      bool to_guest = queue.index == virtio::kConsoleReceiveQueue;
      direct<virtio::Descriptor>(queue.descriptors + slot * sizeof(virtio::Descriptor)) = {
          queue.descriptors + below(3 * kPageSize - 64), static_cast<u32>(1 + below(64)),
          static_cast<u16>((to_guest ? virtio::kDescriptorWrite : 0) | (chance(4) ? virtio::kDescriptorNext : 0)),
          static_cast<u16>((slot + 1) % queue.size)};
    }
    auto* index = &direct<volatile u16>(queue.available + 2);
    direct<volatile u16>(queue.available + 4 + 2 * (*index % queue.size)) = static_cast<u16>(below(queue.size));
    *index = static_cast<u16>(*index + 1);
    ring(queue);
    for (u64 n = below(2000); n > 0; --n)
      direct<volatile u16>(queue.descriptors + below(kPageSize) / 2 * 2) = static_cast<u16>(random() >> below(16));
  }
}

void batches() {
  for (int i = 0; i < 300; ++i) {
    u64 page = align_down(arena() + below(kArena - kPageSize), kPageSize);
    auto& batch = direct<volatile MonitorBatch>(page);
    batch.count = static_cast<u32>(chance(4) ? any_value() : below(kMonitorBatchMax));
    for (auto& access : batch.accesses) {
      u32 offset = static_cast<u32>(below(device_count()) * kVirtioMmioStride) + kRegisters[below(sizeof(kRegisters) / sizeof(u32))];
      access.offset = (chance(20) ? static_cast<u32>(any_value()) : offset) | (chance(3) ? kMonitorBatchRead : 0);
      access.value = static_cast<u32>(any_value());
    }
    u64 frame = chance(4) ? any_value() : (chance(4) ? any_address() : page) / kPageSize;
    if (chance(4)) *reinterpret_cast<volatile u64*>(window(0) + kMonitorBatchAccess) = frame;
    else store32(window(0) + kMonitorBatchAccess, frame);
  }
}

// The monitor must not write into the nub's memory on the guest's behalf: the next upcall comes as if nothing had been.
void nub_by_batch() {
  for (u64 frame = 0; frame < info->nub_size / kPageSize; ++frame) store32(window(0) + kMonitorBatchAccess, frame);
  asm volatile("ud2");
}
// Nor by a device: the used ring of an entropy device is made to lie there.
void nub_by_ring() {
  start(3);
  set_up(queues[0], 3, 0, arena());
  run_device(3);
  direct<virtio::Descriptor>(queues[0].descriptors) = {0, static_cast<u32>(kPageSize), virtio::kDescriptorWrite, 0};
  direct<volatile u16>(queues[0].available + 2) = 1;
  ring(queues[0]);
  monitor_page().park_deadline = tsc() + 100000000;
  store32(window(0) + kMonitorPark, 1);
  asm volatile("ud2");
}

// Nor by a copy, to it or from it; nor into the image.
void nub_by_copy() {
  auto& shared = *reinterpret_cast<VcpuShared*>(info->vcpu_shared);
  auto copied = [&](u64 to, u64 from, u64 length) {
    shared.calls[0] = {NubOp::copy, 0, 0, to, from, length, 0, 0};
    store32(window(0) + kMonitorTables, 1);
    return shared.calls_done != 0;
  };
  if (!copied(arena(), arena() + kPageSize, kPageSize)) finish(kNoSuchMode);  // this is allowed, or nothing is tried
  for (u64 at = 0; at < info->nub_size; at += kPageSize) {
    if (copied(at, arena(), kPageSize) || copied(arena(), at, kPageSize) || copied(at + kPageSize - 8, arena(), 16)) finish(kReached);
  }
  if (copied(kMonitorImageAddress, arena(), 8) || copied(info->ram_size - 8, arena(), 16) || copied(arena(), info->ram_size - 8, 16))
    finish(kReached);
  asm volatile("ud2");
}

// Between places of the arena, or nowhere.
void copies() {
  auto& shared = *reinterpret_cast<VcpuShared*>(info->vcpu_shared);
  auto inside = [](u64 address) { return address >= arena() && address < arena() + kArena / 2; };
  for (int i = 0; i < 1000; ++i) {
    for (NubCall& call : shared.calls) {
      call = {NubOp::copy, 0, static_cast<u32>(random()), any_address(), any_address(), chance(4) ? any_value() : below(kArena / 2), 0, 0};
      if (call.va >= info->ram_size) continue;
      if (!inside(call.va)) call.va = arena();
      if (call.length > kArena / 2) call.length = kArena / 2;
    }
    store32(window(0) + kMonitorTables, any_value());
  }
}

void maps() {
  auto& shared = *reinterpret_cast<VcpuShared*>(info->vcpu_shared);
  for (int i = 0; i < 1000; ++i) {
    for (NubCall& call : shared.calls) {
      u32 flags = static_cast<u32>(chance(2) ? kNubRead | kNubWrite : below(64));
      call = {NubOp::map,
              0,
              flags,
              chance(3) ? any_value() : 0x10000000 + below(4096) * kPageSize,
              chance(3) ? any_value() : align_down(any_address(), kPageSize),
              chance(4) ? any_value() : below(64) * kPageSize,
              0,
              0};
      if (chance(3)) call.va = info->kernel_area_start + below(4096) * kPageSize;
      if (chance(10)) call.op = static_cast<NubOp>(below(20));
      if (call.op == NubOp::copy) call.op = NubOp::none;  // copies have a mode of their own
    }
    store32(window(0) + kMonitorTables, any_value());
  }
}

// What a machine next to it does: prints and ends.
void normal() {
  start(0);
  set_up(queues[0], 0, virtio::kConsoleTransmitQueue, arena());
  run_device(0);
  const char text[] = "all is well\n";
  u64 buffer = arena() + 4 * kPageSize;
  for (u64 i = 0; i < sizeof(text); ++i) direct<volatile char>(buffer + i) = text[i];
  direct<virtio::Descriptor>(queues[0].descriptors) = {buffer, sizeof(text) - 1, 0, 0};
  direct<volatile u16>(queues[0].available + 2) = 1;
  ring(queues[0]);
  finish(0);
}

// "MODE SEED"
bool take_word(std::string_view& text, std::string_view word) {
  if (!text.starts_with(word) || text.size() <= word.size() || text[word.size()] != ' ') return false;
  text.remove_prefix(word.size() + 1);
  return true;
}
void attack(std::string_view text) {
  struct Mode {
    std::string_view name;
    void (*run)();
  };
  const Mode kModes[] = {{"registers", registers},
                         {"monitor_registers", monitor_registers},
                         {"wild_rings", [] { rings(0); }},
                         {"subtle_rings", [] { rings(200); }},
                         {"self_modifying_rings", self_modifying_rings},
                         {"batches", batches},
                         {"maps", maps},
                         {"nub_by_batch", nub_by_batch},
                         {"nub_by_ring", nub_by_ring},
                         {"nub_by_copy", nub_by_copy},
                         {"copies", copies},
                         {"normal", normal}};
  for (const Mode& mode : kModes) {
    if (!take_word(text, mode.name)) continue;
    for (char digit : text) random_state = random_state * 10 + static_cast<u64>(digit - '0');
    mode.run();
    finish(kSurvived);
  }
  finish(kNoSuchMode);
}

}  // namespace

extern "C" void guest_upcall() { finish(kFaulted); }

extern "C" void guest_main(const BootInfo* boot_info) {
  info = boot_info;
  ConfigReader reader({reinterpret_cast<const u8*>(info->config_base), info->config_size});
  while (auto record = reader.next()) {
    if (record->tag == ConfigTag::program) attack(record->text());
  }
  finish(kNoSuchMode);
}
