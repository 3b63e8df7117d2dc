// The fake platform: a virtual clock and a nub that keeps its page tables in a map and refuses what the real one refuses.
#include "platform/fake/fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <map>

#include "abi/image_format.h"
#include "abi/monitor_device.h"
#include "base/ref.h"
#include "kernel/cpu.h"
#include "platform/nub_calls.h"
#include "platform/platform.h"

namespace husk {
namespace platform::fake {
namespace {

constexpr u64 kKernelAreaSize = 4 * kGiB;
constexpr u64 kUpperHalf = u64{1} << 47;

using Space = std::map<u64, Mapping>;  // by page address

class FakeMachine {
 public:
  explicit FakeMachine(u64 ram_size) : spaces{{0, {}}} {
    ram_file_ = memfd_create("husk-fake-ram", MFD_CLOEXEC);
    if (ram_file_ < 0 || ftruncate(ram_file_, static_cast<off_t>(ram_size)) != 0) abort();
    ram_ = reserve(ram_size + kHugePageSize);
    kernel_area_ = reserve(kKernelAreaSize);
    memset(&shared, 0, sizeof(shared));
    cpu.shared = &shared;
    info.magic = abi::kBootInfoMagic;
    info.version = abi::kBootInfoVersion;
    info.machine = abi::MachineKind::monitor;
    info.direct_base = align_up(reinterpret_cast<u64>(ram_), kHugePageSize);
    info.direct_size = info.ram_size = ram_size;
    info.kernel_area_start = align_up(reinterpret_cast<u64>(kernel_area_), kHugePageSize);
    info.kernel_area_end = reinterpret_cast<u64>(kernel_area_) + kKernelAreaSize;
    info.vcpu_shared = reinterpret_cast<u64>(&shared);
    info.ram_is_zero = 1;
    info.free_range_count = 1;
    info.free_ranges[0] = {kHugePageSize, ram_size - kHugePageSize};
    void* direct = reinterpret_cast<void*>(info.direct_base);
    if (mmap(direct, ram_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, ram_file_, 0) != direct) abort();
  }
  ~FakeMachine() {
    munmap(ram_, info.ram_size + kHugePageSize);
    munmap(kernel_area_, kKernelAreaSize);
    close(ram_file_);
  }
  FakeMachine(const FakeMachine&) = delete;
  FakeMachine& operator=(const FakeMachine&) = delete;

  int execute(abi::NubCall& call);

  abi::BootInfo info{};
  alignas(kPageSize) abi::VcpuShared shared{};
  Cpu cpu;
  std::map<u32, Space> spaces;
  u32 current_space = 0, next_space = 1;
  u64 now = 0, deadline = 0, table_pages_max = ~u64{0};
  bool jit = false;
  bool first_use_is_dear = false;
  Counters counters{};
  std::function<void()> halt_hook;
  std::string debug;

 private:
  static void* reserve(u64 size) {
    void* at = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) abort();
    return at;
  }
  bool in_kernel_area(u64 va) const { return va >= info.kernel_area_start && va < info.kernel_area_end; }
  static bool in_image(u64 pa) { return pa >= abi::kMonitorImageAddress && pa < abi::kMonitorImageAddress + kImageSize; }
  static bool in_devices(u64 pa) { return pa >= abi::kMonitorDeviceAddress && pa < abi::kMonitorDeviceAddress + kDeviceSize; }
  bool in_ram(u64 pa) const { return pa >= kHugePageSize && pa < info.ram_size; }
  bool allowed(const abi::NubCall& call, u64 va, u64 pa) const;
  int map(const abi::NubCall& call);
  int protect(const abi::NubCall& call);
  void unmap(const abi::NubCall& call);
  void show(u64 va, const Mapping* mapping);
  // The kernel's half is the same in all spaces; it is kept in space 0.
  Space* space_of(const abi::NubCall& call) {
    auto at = spaces.find(in_kernel_area(call.va) ? 0 : call.space);
    return at == spaces.end() ? nullptr : &at->second;
  }

  int ram_file_;
  void* ram_;
  void* kernel_area_;
};

bool FakeMachine::allowed(const abi::NubCall& call, u64 va, u64 pa) const {
  bool program = !in_kernel_area(va);
  if (program && (va < kUserStart || va >= kUpperHalf)) return false;
  if (!in_ram(pa) && !in_image(pa) && !in_devices(pa)) return false;
  if (in_image(pa) && (call.flags & kWrite)) return false;
  if (!(call.flags & kExecute)) return true;
  if (!program) return false;
  bool as_jit = jit && program && (call.flags & kJit);
  return as_jit || (in_image(pa) && !(call.flags & kWrite));
}

// Makes a kernel mapping real.
void FakeMachine::show(u64 va, const Mapping* mapping) {
  if (!in_kernel_area(va)) return;
  void* at = reinterpret_cast<void*>(va);
  void* got;
  if (mapping == nullptr || !in_ram(mapping->physical.value)) {
    got = mmap(at, kPageSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
  } else {
    int protection = (mapping->protection & kRead ? PROT_READ : 0) | (mapping->protection & kWrite ? PROT_WRITE : 0);
    got = mmap(at, kPageSize, protection, MAP_SHARED | MAP_FIXED, ram_file_, static_cast<off_t>(mapping->physical.value));
  }
  if (got != at) abort();
}

int FakeMachine::map(const abi::NubCall& call) {
  Space& space = *space_of(call);
  for (u64 at = 0; at < call.length; at += kPageSize) {
    if (!allowed(call, call.va + at, call.pa + at)) return EPERM;
    if (space.size() >= table_pages_max) return ENOMEM;
    Mapping mapping{{call.pa + at}, call.flags};
    space[call.va + at] = mapping;
    show(call.va + at, &mapping);
  }
  return 0;
}

int FakeMachine::protect(const abi::NubCall& call) {
  Space& space = *space_of(call);
  for (auto at = space.lower_bound(call.va); at != space.end() && at->first < call.va + call.length; ++at) {
    if (!allowed(call, at->first, at->second.physical.value)) return EPERM;
    at->second.protection = call.flags;
    show(at->first, &at->second);
  }
  return 0;
}

void FakeMachine::unmap(const abi::NubCall& call) {
  Space& space = *space_of(call);
  auto first = space.lower_bound(call.va), last = space.lower_bound(call.va + call.length);
  for (auto at = first; at != last; ++at) show(at->first, nullptr);
  space.erase(first, last);
}

int FakeMachine::execute(abi::NubCall& call) {
  ++counters.operations;
  bool on_pages = call.op == abi::NubOp::map || call.op == abi::NubOp::unmap || call.op == abi::NubOp::protect;
  if (on_pages) {
    if (space_of(call) == nullptr || !is_aligned(call.va | call.length, kPageSize) || call.length == 0) return EINVAL;
    if (call.op == abi::NubOp::map && !is_aligned(call.pa, kPageSize)) return EINVAL;
  }
  switch (call.op) {
    case abi::NubOp::map: return map(call);
    case abi::NubOp::protect: return protect(call);
    case abi::NubOp::unmap: unmap(call); return 0;
    case abi::NubOp::space_create:
      spaces[next_space];
      call.pa = next_space++;
      return 0;
    case abi::NubOp::space_switch:
      if (!spaces.contains(call.space)) return EINVAL;
      current_space = call.space;
      return 0;
    case abi::NubOp::space_destroy:
      if (call.space == current_space || call.space == 0) return EINVAL;
      return spaces.erase(call.space) == 1 ? 0 : EINVAL;
    case abi::NubOp::seal: return 0;
    case abi::NubOp::copy: memcpy(direct(info, call.va), direct(info, call.pa), call.length); return 0;
    default: return ENOSYS;
  }
}

Owned<FakeMachine>& machine_slot() {
  static Owned<FakeMachine> slot = std::make_unique<FakeMachine>(kRamSizeDefault);
  return slot;
}
FakeMachine& machine() { return *machine_slot(); }

}  // namespace

void reset(u64 ram_size) { machine_slot() = std::make_unique<FakeMachine>(ram_size); }
const abi::BootInfo& boot_info() { return machine().info; }
void set_image(void* bytes, u64 size) {
  machine().info.image_physical = abi::kMonitorImageAddress;
  machine().info.image_base = reinterpret_cast<u64>(bytes);
  machine().info.image_size = size;
}
void allow_jit(bool allowed) { machine().jit = allowed; }
void shadow_page_tables() { machine().first_use_is_dear = true; }
void limit_table_pages(u64 pages) { machine().table_pages_max = pages; }
void advance(u64 ticks) { machine().now += ticks; }
u64 armed_deadline() { return machine().deadline; }
void set_halt_hook(std::function<void()> during) { machine().halt_hook = std::move(during); }

std::optional<Mapping> lookup(u32 space, u64 address) {
  auto spaces = machine().spaces.find(space);
  if (spaces == machine().spaces.end()) return std::nullopt;
  auto found = spaces->second.find(align_down(address, kPageSize));
  if (found == spaces->second.end()) return std::nullopt;
  return found->second;
}

size_t mapped_pages(u32 space) {
  const abi::BootInfo& info = boot_info();
  size_t pages = 0;
  for (auto& [va, mapping] : machine().spaces[space]) pages += va < info.kernel_area_start || va >= info.kernel_area_end;
  return pages;
}

u32 current_space() { return machine().current_space; }
Counters counters() { return machine().counters; }
std::string& debug_output() { return machine().debug; }

}  // namespace platform::fake

Cpu& this_cpu() { return platform::fake::machine().cpu; }

namespace platform {

void init(const abi::BootInfo&) {}
u64 ticks() { return fake::machine().now; }
void arm_timer(u64 deadline_ticks) { fake::machine().deadline = deadline_ticks; }
void before_program() {}
void acknowledge_event() { fake::machine().shared.interrupt_pending = 0; }

bool halting_serves() { return false; }

void halt() {
  auto& machine = fake::machine();
  ++machine.counters.halts;
  if (machine.halt_hook) {
    machine.halt_hook();
    if (machine.shared.interrupt_pending) return;
  }
  if (machine.deadline == 0 && !machine.halt_hook) HUSK_PANIC("halt with no timer and nothing that could wake: deadlock");
  if (machine.deadline > machine.now) machine.now = machine.deadline;
}

void power_off(u32 status) { exit(static_cast<int>(status)); }

void debug_write(const char* text, size_t length) {
  fake::machine().debug.append(text, length);
  fwrite(text, 1, length, stderr);
}

std::span<abi::NubCall> nub_calls() { return this_cpu().shared->calls; }
bool first_use_is_dear() { return fake::machine().first_use_is_dear; }
void expect_use(PhysAddr, u64 length) { fake::machine().counters.bytes_expected += length; }

Result<void> run_nub_calls(u32 count) {
  auto& machine = fake::machine();
  ++machine.counters.nub_entries;
  for (u32 i = 0; i < count; ++i) {
    int code = machine.execute(machine.shared.calls[i]);
    if (code == 0) continue;
    machine.shared.calls_done = i;
    return Error(code);
  }
  return {};
}

}  // namespace platform
}  // namespace husk
