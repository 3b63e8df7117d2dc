// The platform through the nub: under the husk monitor (parking and timer by its device) or on a PC (local APIC by nub calls).
//
// The machine learns a timer deadline as late as possible: parking carries it along, so that a thread that sleeps with a timeout on
// an idle machine rings no doorbell. Only when program code runs next, before_program() tells it.
#include <string.h>

#include "abi/monitor_device.h"
#include "kernel/cpu.h"
#include "platform/nub_calls.h"
#include "platform/platform.h"

extern "C" husk::i64 kernel_nub_call(husk::u64 count);

namespace husk::platform {
namespace {

struct Machine {
  abi::MachineKind kind = abi::MachineKind::pc;
  abi::VcpuShared* shared = nullptr;
  abi::MonitorPage* page = nullptr;
  volatile u32* device = nullptr;
  const abi::BootInfo* info = nullptr;
  u64 deadline = 0;        // wanted
  u64 known_deadline = 0;  // what the machine knows; it may be earlier than the wanted one
};
constinit Machine machine;

void store_register(abi::MonitorRegister offset, u32 value) { machine.device[offset / sizeof(u32)] = value; }

void ignore_missing(const Result<void>&) {}

// An earlier deadline that the machine still has costs one spurious event, less than telling it.
bool must_tell() {
  return machine.deadline != 0 && (machine.known_deadline == 0 || machine.deadline < machine.known_deadline || machine.known_deadline <= ticks());
}

}  // namespace

void init(const abi::BootInfo& info) {
  machine.kind = info.machine;
  machine.shared = reinterpret_cast<abi::VcpuShared*>(info.vcpu_shared);
  machine.page = reinterpret_cast<abi::MonitorPage*>(info.monitor_page);
  machine.info = &info;
  for (u32 i = 0; i < info.window_count && i < abi::kWindowsMax; ++i) {
    if (info.windows[i].kind == abi::WindowKind::monitor_device) {
      machine.device = reinterpret_cast<volatile u32*>(info.windows[i].virtual_address);
    }
  }
  if (machine.kind == abi::MachineKind::monitor && (machine.device == nullptr || machine.page == nullptr)) {
    HUSK_PANIC("boot info names no monitor device");
  }
  if (machine.kind == abi::MachineKind::monitor) machine.page->parks_at_once = 1;
}

u64 ticks() { return __builtin_ia32_rdtsc(); }

void arm_timer(u64 deadline_ticks) {
  machine.deadline = deadline_ticks;
  if (must_tell()) raise_work(kWorkPlatform);
}

void before_program() {
  if (!must_tell()) return;
  machine.known_deadline = machine.deadline;
  if (machine.kind == abi::MachineKind::monitor) {
    __atomic_store_n(&machine.page->timer_deadline, machine.deadline, __ATOMIC_SEQ_CST);
    store_register(abi::kMonitorTimer, 1);
  } else {
    ignore_missing(run_nub_call({.op = abi::NubOp::arm_timer, .pa = machine.deadline}));
  }
}

// A PC's local APIC delivers nothing more until it hears this. Its timer is one-shot and may be early (nub/pc.cc): told anew.
void acknowledge_event() {
  machine.shared->interrupt_pending = 0;
  if (machine.kind == abi::MachineKind::monitor) return;
  machine.known_deadline = 0;
  ignore_missing(run_nub_call({.op = abi::NubOp::end_of_interrupt}));
}

bool halting_serves() { return machine.kind == abi::MachineKind::monitor && __atomic_load_n(&machine.page->serves_parked, __ATOMIC_RELAXED) != 0; }

void halt() {
  if (machine.kind == abi::MachineKind::monitor) {
    // Parking arms no timer for the program: that one is still the monitor's as it was told last.
    __atomic_store_n(&machine.page->park_deadline, machine.deadline, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&machine.shared->interrupt_pending, __ATOMIC_SEQ_CST) == 0) store_register(abi::kMonitorPark, 1);
    return;
  }
  machine.known_deadline = machine.deadline;
  ignore_missing(run_nub_call({.op = abi::NubOp::arm_timer, .pa = machine.deadline}));
  ignore_missing(run_nub_call({.op = abi::NubOp::halt}));
}

void power_off(u32 status) {
  if (machine.device != nullptr) store_register(abi::kMonitorPowerOff, status);
  ignore_missing(run_nub_call({.op = abi::NubOp::power_off, .pa = status}));
  for (;;) asm volatile("ud2");
}

void debug_write(const char* text, size_t length) {
  if (machine.page != nullptr) {  // the monitor's nub has no serial port
    u64& size = machine.page->early_text_size;
    for (; length > 0 && size < sizeof(machine.page->early_text); --length) machine.page->early_text[size++] = *text++;
    return;
  }
  constexpr size_t kInline = 3 * sizeof(u64);
  while (length > 0) {
    u64 words[3] = {};
    size_t part = length < kInline ? length : kInline;
    memcpy(words, text, part);
    ignore_missing(run_nub_call({.op = abi::NubOp::debug_write, .va = words[0], .pa = words[1], .length = words[2]}));
    text += part;
    length -= part;
  }
}

std::span<abi::NubCall> nub_calls() { return machine.shared->calls; }

bool first_use_is_dear() { return machine.info->monitor_tables != 0; }

void expect_use(PhysAddr start, u64 length) {
  if (machine.kind != abi::MachineKind::monitor) return;
  store_register(abi::kMonitorBack, static_cast<u32>(start.value / kHugePageSize << abi::kMonitorBackCountBits | length / kHugePageSize));
}

namespace {

bool monitor_may(abi::NubOp op) {
  using enum abi::NubOp;
  return first_use_is_dear() && (op == map || op == unmap || op == protect || op == copy);
}

// What the monitor does of the calls where it is faster than the nub (kMonitorTables). Gives how many.
u32 let_monitor_work(u32 count) {
  if (!monitor_may(machine.shared->calls[0].op)) return 0;
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  store_register(abi::kMonitorTables, count);
  u64 done = __atomic_load_n(&machine.shared->calls_done, __ATOMIC_ACQUIRE);
  return done < count ? static_cast<u32>(done) : count;
}

}  // namespace

Result<void> run_nub_calls(u32 count) {
  bool again = true;
  while (again) {
    machine.shared->calls_prepared = 0;
    u32 done = let_monitor_work(count);
    again = machine.shared->calls_prepared != 0;
    if (again) kernel_nub_call(HUSK_NUB_APPLY);
    count -= done;
    if (count == 0) return {};
    if (done != 0) memmove(&machine.shared->calls[0], &machine.shared->calls[done], count * sizeof(abi::NubCall));
  }
  for (abi::NubCall& call : std::span(machine.shared->calls).first(count)) {
    if (call.op != abi::NubOp::copy) continue;
    memcpy(direct(*machine.info, call.va), direct(*machine.info, call.pa), call.length);
    call.op = abi::NubOp::none;
  }
  i64 code = kernel_nub_call(count);
  return code == 0 ? Result<void>() : Result<void>(Error(static_cast<int>(-code)));
}

}  // namespace husk::platform
