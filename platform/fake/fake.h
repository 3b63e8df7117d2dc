// Controls of the fake platform for hosted tests. Everything starts afresh with reset().
//
// Time stands still until advance() or halt(), which moves it to the armed deadline; 1 tick = 1 ns.
// RAM is a memory file mapped at boot_info().direct_base; what the kernel maps in [kernel_area_start, kernel_area_end) is really
// there, so that guarded kernel memory works. Mappings of program addresses are only recorded: hosted user copies use pointers.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "abi/boot_info.h"
#include "base/types.h"

namespace husk::platform::fake {

constexpr u64 kTicksPerSecond = 1'000'000'000;
constexpr u64 kRamSizeDefault = 64 * kMiB;
// Physical ranges besides RAM that may be mapped: as under the husk monitor.
constexpr u64 kImageSize = kGiB;
constexpr u64 kDeviceSize = kMiB;

void reset(u64 ram_size = kRamSizeDefault);
const abi::BootInfo& boot_info();       // one free range: RAM from 2 MiB on, zeroed
void set_image(void* bytes, u64 size);  // at kMonitorImageAddress
void allow_jit(bool allowed);
void shadow_page_tables();          // as KVM does: first_use_is_dear()
void limit_table_pages(u64 pages);  // mapped pages after which the nub says ENOMEM

void advance(u64 ticks);
u64 armed_deadline();                              // 0: none
void set_halt_hook(std::function<void()> during);  // what the world does while the machine sleeps

struct Mapping {
  PhysAddr physical;
  u32 protection;
};
std::optional<Mapping> lookup(u32 space, u64 address);
size_t mapped_pages(u32 space);  // program half
u32 current_space();

struct Counters {
  u64 halts, nub_entries, operations;
  u64 bytes_expected;  // what expect_use() was told
};
Counters counters();
std::string& debug_output();

}  // namespace husk::platform::fake
