// What the monitor would have done, done by the nub itself: reads what a PVH loader knows, builds the first state, enters the kernel.
//
// Called once by pvh.S in 64-bit mode on a private copy of the nub, with the first 4 GiB mapped as they are. For QEMU's microvm
// (virtio-mmio at 0xfeb00000) and q35 (PCI), Firecracker, Cloud Hypervisor. Messages go to the first serial port.
#include <cpuid.h>

#include "nub/nub.h"

extern "C" {
extern const char pvh_stack_top[];
[[noreturn]] void pvh_enter(const husk::abi::CpuState* state);
}
asm(".globl pvh_stack_top; .set pvh_stack_top, 0xffffffffa0003000");  // kNubVcpuBase + kBlockStack + 4096

namespace husk::nub {
namespace {

using namespace abi;

static_assert(kNubVcpuBase + kBlockStack + kPageSize == 0xffffffffa0003000);
static_assert(__builtin_offsetof(CpuState, cr3) == 0x28 && __builtin_offsetof(CpuState, gs_base) == 0x48 &&
              __builtin_offsetof(CpuState, gdt_base) == 0x50 && __builtin_offsetof(CpuState, idt_base) == 0x58 &&
              __builtin_offsetof(CpuState, gdt_limit) == 0x68 && __builtin_offsetof(CpuState, idt_limit) == 0x6a);
static_assert(__builtin_offsetof(ImageHeader, file_size) == 16 && __builtin_offsetof(ImageHeader, nub_part_count) == 24 &&
              __builtin_offsetof(ImageHeader, nub_parts) == 32);

constexpr u64 kApic = 0xfee00000, kIdentityEnd = 4 * kGiB, kConfigMax = kMiB, kScratchConfig = 0x40000;
constexpr u64 kMmioDevices = 0xfeb00000, kMmioStride = 0x200, kMmioCount = 24;  // QEMU's microvm
constexpr u64 kPciBars = 0xc0000000, kPciBarsEnd = 0xfec00000;
constexpr u32 kVirtioMagic = 0x74726976;

struct StartInfo {  // xen/include/public/arch-x86/hvm/start_info.h
  u32 magic, version, flags, module_count;
  u64 modules, command_line, rsdp, memory_map;
  u32 memory_map_count, reserved;
};
struct StartModule {
  u64 address, size, command_line, reserved;
};
struct StartRange {
  u64 address, size;
  u32 type, reserved;
};
constexpr u32 kStartMagic = 0x336ec578, kTypeRam = 1;

template <typename T>
T* physical(u64 address) {
  return reinterpret_cast<T*>(address);
}

[[noreturn]] void stop(const char* why) {
  serial_write("husk nub: ", 10);
  serial_write(why, 200);
  serial_write("\r\n", 2);
  power_off();
}

struct Cpuid {
  u32 a = 0, b = 0, c = 0, d = 0;
  explicit Cpuid(u32 leaf, u32 index = 0) { __cpuid_count(leaf, index, a, b, c, d); }
};

// Channel 0 counts down from 65535 at 1193182 Hz; read by latching, because QEMU's microvm has no port 0x61. 0: there is none.
u64 tsc_from_pit() {
  constexpr u64 kHz = 1193182, kTicks = kHz / 50;
  out8(0x43, 0x30);
  out8(0x40, 0xff);
  out8(0x40, 0xff);
  u64 start = read_tsc(), elapsed = 0, ticks = 0;
  while (ticks < kTicks && elapsed < 2000000000) {
    out8(0x43, 0);
    u32 low = in8(0x40);
    ticks = 0xffff - (low | u32{in8(0x40)} << 8);
    elapsed = read_tsc() - start;
  }
  return ticks < kTicks ? 0 : elapsed * kHz / ticks;
}
u64 tsc_frequency() {
  if (Cpuid(0).a >= 0x15) {
    Cpuid ratio(0x15);
    if (ratio.a != 0 && ratio.b != 0 && ratio.c != 0) return u64{ratio.c} * ratio.b / ratio.a;
  }
  if ((Cpuid(1).c >> 31) && Cpuid(0x40000000).a >= 0x40000010) {
    if (u64 khz = Cpuid(0x40000010).a; khz != 0) return khz * 1000;
  }
  return tsc_from_pit();
}

// APIC timer ticks per TSC tick, measured over about a millisecond.
u64 apic_ratio(u64 frequency) {
  volatile u32* apic = physical<volatile u32>(kApic);
  apic[0xf0 / 4] = 0x100 | HUSK_VECTOR_SPURIOUS;
  apic[0x3e0 / 4] = 0xb;
  apic[0x320 / 4] = 0x10000 | HUSK_VECTOR_TIMER;  // masked
  u64 start = read_tsc();
  apic[0x380 / 4] = 0xffffffff;
  while (read_tsc() - start < (frequency != 0 ? frequency / 1000 : 1000000)) {}
  u64 ticks = 0xffffffff - apic[0x390 / 4], elapsed = read_tsc() - start;
  apic[0x380 / 4] = 0;
  return (ticks << 24) / elapsed;
}

u32 cmos(u8 index) {
  out8(0x70, index);
  return in8(0x71);
}
u64 wall_clock_ns() {
  while (cmos(0x0a) & 0x80) {}
  u32 field[6];
  const u8 index[6] = {0, 2, 4, 7, 8, 9};
  for (int i = 0; i < 6; ++i) {
    field[i] = cmos(index[i]);
    if (!(cmos(0x0b) & 4)) field[i] = (field[i] & 15) + (field[i] >> 4) * 10;
  }
  u64 year = 2000 + field[5], month = field[4];
  // Days since 1970 of a proleptic Gregorian date, the year starting in March.
  u64 y = month <= 2 ? year - 1 : year, m = month <= 2 ? month + 9 : month - 3;
  u64 days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 306 + 5) / 10 + (field[3] - 1) - 719468;
  return (((days * 24 + field[2]) * 60 + field[1]) * 60 + field[0]) * 1000000000;
}

void fill_random(u8* bytes, u64 size) {
  bool rdrand = Cpuid(1).c >> 30 & 1;
  for (u64 i = 0; i + 8 <= size; i += 8) {
    u64 word = read_tsc() * 0x9e3779b97f4a7c15;  // the best there is without RDRAND; the kernel adds virtio-rng
    if (rdrand) asm volatile("1: rdrand %0; jnc 1b" : "=r"(word));
    memcpy(bytes + i, &word, 8);
  }
}

// The configuration in effect: the loader's or the image's, and what is missing from it.
struct Config {
  u8* bytes;
  u64 size = 0;
  bool has(ConfigTag tag) const {
    ConfigReader reader({bytes, size});
    while (auto record = reader.next()) {
      if (record->tag == tag) return true;
    }
    return false;
  }
  u64 tsc_frequency() const {
    ConfigReader reader({bytes, size});
    u64 value = 0;
    while (auto record = reader.next()) {
      if (record->tag == ConfigTag::tsc_frequency && record->bytes.size() >= sizeof(value)) memcpy(&value, record->bytes.data(), sizeof(value));
    }
    return value;
  }
  void push_back(u8 byte) { bytes[size++] = byte; }
  void add(ConfigTag tag, const void* value, u64 length) {
    if (!has(tag)) append_config(*this, tag, {static_cast<const char*>(value), length});
  }
  // Up to where the records are sound, so that appending works.
  void copy(const u8* from, u64 length) {
    memcpy(bytes, from, length);
    ConfigReader reader({bytes, length});
    while (auto record = reader.next()) size = align_up(static_cast<u64>(record->bytes.data() - bytes) + record->bytes.size(), 8);
    for (u64 i = length; i < size; ++i) bytes[i] = 0;
  }
};

CpuFeatures cpu_features() {
  Cpuid basic(1), extended(7);
  CpuFeatures has{};
  if (basic.c >> 26 & 1) has.xcr0 = Cpuid(0xd).a & 0xe7;
  if ((has.xcr0 & 0xe0) != 0xe0) has.xcr0 &= 7;
  has.fsgsbase = extended.b & 1;
  has.smep = extended.b >> 7 & 1;
  has.smap = extended.b >> 20 & 1;
  has.umip = extended.c >> 2 & 1;
  // QEMU 7.2's TCG reads the stack of a ring-3 IRETQ with supervisor rights: with SMAP the kernel could not return from upcalls.
  constexpr u32 kTcg = 0x54474354;  // "TCGT"
  if ((basic.c >> 31) && Cpuid(0x40000000).b == kTcg) has.smap = false;
  return has;
}

void find_memory(const StartInfo& start, u64 image_end, MachineInput* input) {
  for (u32 i = 0; i < start.memory_map_count; ++i) {
    const StartRange& range = physical<const StartRange>(start.memory_map)[i];
    if (range.type != kTypeRam) continue;
    u64 first = align_up(range.address < image_end ? image_end : range.address, kPageSize);
    u64 end = align_down(range.address + range.size, kPageSize);
    if (first >= end || input->ram_count == kFreeRangesMax) continue;
    input->ram_size += end - first;
    input->ram[input->ram_count++] = {first, end - first};
  }
}

u32 find_windows(DeviceWindow* windows) {
  if (*physical<volatile u32>(kMmioDevices) != kVirtioMagic) {
    windows[0] = {WindowKind::pci_bars, 0, kPciBars, kPciBarsEnd - kPciBars, 0};
    return 1;
  }
  for (u64 i = 0; i < kMmioCount; ++i) windows[i] = {WindowKind::virtio_mmio, 0, kMmioDevices + i * kMmioStride, kMmioStride, 0};
  return kMmioCount;
}

void load_cpu(const CpuState& cpu) {
  asm volatile("movq %0, %%cr4" : : "r"(cpu.cr4));
  asm volatile("movq %0, %%cr0" : : "r"(cpu.cr0));
  if (cpu.xcr0 != 0) asm volatile("xsetbv" : : "a"(static_cast<u32>(cpu.xcr0)), "d"(0), "c"(0));
  for (u32 i = 0; i < cpu.msr_count; ++i) write_msr(cpu.msrs[i].index, cpu.msrs[i].value);
}

}  // namespace

extern "C" [[noreturn]] void pvh_main(const StartInfo& start, u64 scratch) {
  u64 start_tsc = read_tsc();
  nub_state.machine = MachineKind::pc;
  const ImageHeader& header = *physical<const ImageHeader>(kImageLoadAddress + kImageHeaderOffset);
  if (start.magic != kStartMagic || start.version < 1) stop("the loader gives no PVH start info with a memory map");
  if (header.magic != kImageMagic) stop("the image is not where it should be");
  out8(0x21, 0xff);  // no interrupts from the old controllers
  out8(0xa1, 0xff);

  MachineInput input{};
  find_memory(start, kImageLoadAddress + header.file_size, &input);
  input.area_start = scratch + kHugePageSize;

  Config config{physical<u8>(scratch + kScratchConfig)};
  const u8* given = physical<const u8>(kImageLoadAddress + header.config_offset);
  u64 given_size = header.config_size;
  if (start.module_count > 0) {
    const StartModule& module = *physical<const StartModule>(start.modules);
    given = physical<const u8>(module.address);
    given_size = module.size;
    if (module.address >= kIdentityEnd) stop("the boot configuration lies above 4 GiB");
  }
  if (given_size > kConfigMax) stop("the boot configuration is too large");
  config.copy(given, given_size);
  u64 frequency = config.tsc_frequency();
  if (frequency == 0) frequency = tsc_frequency();
  u64 wall[2] = {wall_clock_ns(), read_tsc()};
  u8 seed[32], entropy[32];
  fill_random(seed, sizeof(seed));
  fill_random(entropy, sizeof(entropy));
  if (frequency != 0) config.add(ConfigTag::tsc_frequency, &frequency, sizeof(frequency));
  config.add(ConfigTag::wall_clock, wall, sizeof(wall));
  config.add(ConfigTag::random_seed, seed, sizeof(seed));

  DeviceWindow windows[kMmioCount];
  input.header = &header;
  input.image_physical = kImageLoadAddress;
  input.machine = MachineKind::pc;
  input.start_tsc = start_tsc;
  input.config = config.bytes;
  input.config_size = config.size;
  input.entropy = entropy;
  input.windows = windows;
  input.window_count = find_windows(windows);
  input.features = cpu_features();
  input.apic_physical = kApic;
  input.tsc_per_apic_tick_shift24 = apic_ratio(frequency);
  if (!input.features.fsgsbase) stop("this processor lacks FSGSBASE (with QEMU's TCG use -cpu max)");
  MachineOutput output;
  if (const char* error = build_machine(
          input, [](u64 address) { return physical<u8>(address); }, &output))
    stop(error);
  load_cpu(output.cpu);
  pvh_enter(&output.cpu);
}

}  // namespace husk::nub
