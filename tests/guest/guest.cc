// The micro-guest: one tiny ring-3 kernel that holds all tests of the nub; the boot configuration's `program` names the one to run.
//
// Each test attacks one invariant of nub/invariants.md or checks one promise of abi/nub_abi.h from where the real kernel would: ring 3.
// The result is the power-off status: 0, or 1 with the failed line in MonitorPage::page_faults.
#include <errno.h>

#include "abi/boot_config.h"
#include "abi/boot_info.h"
#include "abi/image_format.h"
#include "abi/machine_state.h"
#include "abi/monitor_device.h"
#include "abi/nub_abi.h"

using namespace husk;
using namespace husk::abi;

extern "C" {
i64 guest_nub_call(u64 count);
u64 guest_trap_syscall(u64 rax);
u64 guest_read(const void* address);
u64 guest_write(void* address);
u64 guest_jump(const void* address);
u64 guest_ud();
extern const char* const privileged_sites[];
extern char recover[], ud_site[], trap_return[], kernel_start[];
extern u64 trapped_rcx, trapped_r11, trapped_rsp, trapped_rax;
}

namespace {

const BootInfo* info;
VcpuShared* shared;
volatile u32* monitor;
u64 seen_busy, seen_enabled;  // in the upcall
u64 fault_vector, fault_error, fault_address, fault_count, interrupt_count;
alignas(4096) u8 page_of_data[2 * kPageSize] = {1};
const char* const relocated = "relocated";

bool on_pc() { return info->machine == MachineKind::pc; }
void print(const char* text) {
  for (; *text != 0; ++text) asm volatile("outb %0, %1" : : "a"(*text), "Nd"(u16{0x3f8}));
}
[[noreturn]] void finish(u32 status) {
  if (on_pc()) {
    print(status == 0 ? "PASS\r\n" : "FAIL\r\n");
    shared->calls[0] = {NubOp::power_off, 0, 0, 0, status, 0, 0, 0};
    guest_nub_call(1);
  }
  *monitor = status;
  for (;;) {}
}
[[noreturn]] void fail(int line) {
  if (on_pc()) {
    char text[] = "guest.cc:0000 ";
    for (int i = 12; i > 8; --i, line /= 10) text[i] = static_cast<char>('0' + line % 10);
    print(text);
    finish(1);
  }
  reinterpret_cast<volatile MonitorPage*>(info->monitor_page)->page_faults = static_cast<u64>(line);
  finish(1);
}
#define CHECK(condition)              \
  do {                                \
    if (!(condition)) fail(__LINE__); \
  } while (0)

u64 tsc() {
  u32 low, high;
  asm volatile("rdtsc" : "=a"(low), "=d"(high));
  return u64{high} << 32 | low;
}
i64 call(NubOp op, u64 va = 0, u64 pa = 0, u64 length = 0, u32 flags = 0, u32 space = 0) {
  shared->calls[0] = {op, 0, flags, va, pa, length, space, 0};
  return guest_nub_call(1);
}
i64 map(u64 va, u64 pa, u64 length, u32 flags, u32 space = 0) { return call(NubOp::map, va, pa, length, flags, space); }
i64 unmap(u64 va, u64 length, u32 space = 0) { return call(NubOp::unmap, va, 0, length, 0, space); }
i64 protect(u64 va, u64 length, u32 flags) { return call(NubOp::protect, va, 0, length, flags, 0); }

constexpr u32 kR = kNubRead, kRW = kNubRead | kNubWrite, kRX = kNubRead | kNubExecute, kRWX = kRW | kNubExecute;
constexpr u64 kVa = 0x10000000;
u8* at(u64 va) { return reinterpret_cast<u8*>(va); }
u64 free_frame() { return info->free_ranges[0].start; }
u64 free_huge() { return align_up(info->free_ranges[0].start, kHugePageSize); }
u64 text_frame() { return info->image_physical; }
u64 upper() { return info->kernel_area_start; }

void hello() {}

void boot_info_is_sound() {
  CHECK(info->magic == kBootInfoMagic);
  CHECK(reinterpret_cast<u64>(kernel_start) >= info->kernel_base && reinterpret_cast<u64>(kernel_start) - info->kernel_base < info->kernel_size);
  CHECK(relocated[0] == 'r');
  CHECK(*reinterpret_cast<const u64*>(info->image_base + kImageHeaderOffset) == kImageMagic);
  u64* direct = reinterpret_cast<u64*>(info->direct_base + info->free_ranges[0].start);
  CHECK(*direct == 0 || !info->ram_is_zero);
  *direct = 5;
  u64 last = info->free_ranges[0].start + info->free_ranges[0].size - 8;
  *reinterpret_cast<u64*>(info->direct_base + last) = 6;
  CHECK(last + 8 == info->ram_size || on_pc());
  CHECK(guest_read(at(info->upcall_stack_top - kUpcallStackSize - 1)) == 1);
  CHECK(guest_read(at(info->boot_stack_top - kBootStackSize - 1)) == 1);
  CHECK(guest_write(const_cast<BootInfo*>(info)) == 1);
}

void i1_write_and_execute_never_together() {
  CHECK(map(kVa, free_frame(), kPageSize, kRWX) == -EPERM);
  CHECK(map(kVa, text_frame(), kPageSize, kRWX) == -EPERM);
  CHECK(map(kVa, free_frame(), kPageSize, kRW) == 0);
  CHECK(protect(kVa, kPageSize, kRWX) == -EPERM);
  CHECK(guest_jump(at(kVa)) == 1);
  CHECK((fault_error & 0x10) != 0);
}
void i2_memory_is_not_executable_without_jit() {
  CHECK(map(kVa, free_frame(), kPageSize, kRX) == -EPERM);
  CHECK(map(kVa, free_frame(), kPageSize, kRX | kNubJit) == -EPERM);
  CHECK(map(kVa, free_frame(), kPageSize, kR) == 0);
  CHECK(protect(kVa, kPageSize, kRX) == -EPERM);
  CHECK(protect(kVa, kPageSize, kRX | kNubJit) == -EPERM);
  CHECK(map(kVa, text_frame(), kPageSize, kRX) == 0);
}
void i2_jit_image_may_flip() {
  CHECK(map(kVa, free_frame(), kPageSize, kRW | kNubJit) == 0);
  *at(kVa) = 0xc3;  // ret
  CHECK(guest_jump(at(kVa)) == 1);
  CHECK(protect(kVa, kPageSize, kRX | kNubJit) == 0);
  CHECK(guest_jump(at(kVa)) == 0);
  CHECK(guest_write(at(kVa)) == 1);
  CHECK(map(upper(), free_frame(), kPageSize, kRX | kNubJit) == -EPERM);
}
void i3_image_is_never_writable() {
  CHECK(map(kVa, text_frame(), kPageSize, kRW) == -EPERM);
  CHECK(map(kVa, text_frame(), kPageSize, kR) == 0);
  CHECK(protect(kVa, kPageSize, kRW) == -EPERM);
  CHECK(guest_write(at(kVa)) == 1);
  CHECK(guest_write(at(info->image_base)) == 1);
}
void i4_low_addresses_are_refused() {
  CHECK(map(0, free_frame(), kPageSize, kRW) == -EPERM);
  CHECK(map(0x1000, free_frame(), kPageSize, kRW) == -EPERM);
  CHECK(map(0xf000, free_frame(), 2 * kPageSize, kRW) == -EPERM);
  CHECK(map(kUserStart, free_frame(), kPageSize, kRW) == 0);
}
void i5_nub_frames_are_refused() {
  for (u64 pa = 0; pa < info->nub_size; pa += 16 * kPageSize) CHECK(map(kVa, pa, kPageSize, kR) == -EPERM);
  CHECK(map(kVa, info->nub_size - kPageSize, kPageSize, kR) == -EPERM);
  CHECK(map(kVa, 0, kHugePageSize, kRW) == -EPERM);
  CHECK(guest_read(at(info->direct_base)) == 1);
  CHECK(guest_read(at(info->direct_base + info->nub_size - 1)) == 1);
}
void i5_nub_addresses_are_out_of_reach() {
  for (u64 va : {kNubBase, kNubVcpuBase, kNubVcpuBase + kBlockData, kNubVcpuBase + kBlockShared, kNubRegionBase}) {
    CHECK(guest_read(at(va)) == 1);
    CHECK((fault_error & 4) != 0);
    CHECK(map(va, free_frame(), kPageSize, kRW) == -EPERM);
    CHECK(unmap(va, kPageSize) == -EPERM);
    CHECK(protect(va, kPageSize, kRW) == -EPERM);
  }
  CHECK(guest_jump(at(kNubVcpuBase)) == 1);
  CHECK(map(0xffffff8000000000, free_frame(), kPageSize, kRW) == -EPERM);
  CHECK(map(0xffffff8000000000 - kPageSize, free_frame(), 2 * kPageSize, kRW) == -EPERM);
}
u64 end_of_ram() {
  u64 end = 0;
  for (const MemoryRange& range : info->free_ranges) end = range.start + range.size > end ? range.start + range.size : end;
  return end;
}
void i6_foreign_frames_are_refused() {
  u64 ram_end = end_of_ram();
  CHECK(map(kVa, ram_end - kPageSize, kPageSize, kR) == 0);
  CHECK(map(kVa, ram_end, kPageSize, kR) == -EPERM);
  CHECK(map(kVa, ram_end - kPageSize, 2 * kPageSize, kR) == -EPERM);
  // Beside the image is RAM if a loader copied it there, else nothing.
  u64 image_end = align_up(info->image_physical + info->image_size, kPageSize);
  if (!on_pc()) CHECK(map(kVa, image_end, kPageSize, kR) == -EPERM);
  CHECK(map(kVa, image_end - kPageSize, 2 * kPageSize, on_pc() ? kRW : kR) == -EPERM);
  CHECK(map(kVa, info->image_physical - kPageSize, 2 * kPageSize, on_pc() ? kRW : kR) == -EPERM);
  CHECK(map(kVa, 0xfee00000, kPageSize, kRW) == -EPERM);
  CHECK(map(kVa, u64{1} << 52, kPageSize, kRW) == -EPERM);
  CHECK(info->window_count > 0);
  u64 device = align_down(info->windows[0].physical_address, kPageSize);
  const DeviceWindow& last = info->windows[info->window_count - 1];
  CHECK(map(kVa, device, kPageSize, kRW) == 0);
  CHECK(map(kVa, device, kPageSize, kRX) == -EPERM);
  CHECK(map(kVa, align_up(last.physical_address + last.size, kPageSize), kPageSize, kRW) == -EPERM);
}
void i7_malformed_ranges_are_refused() {
  CHECK(map(kVa + 1, free_frame(), kPageSize, kRW) == -EINVAL);
  CHECK(map(kVa, free_frame() + 1, kPageSize, kRW) == -EINVAL);
  CHECK(map(kVa, free_frame(), 1, kRW) == -EINVAL);
  CHECK(map(kVa, free_frame(), 0, kRW) == -EINVAL);
  CHECK(map(kVa, free_frame(), u64{0} - kPageSize, kRW) == -EINVAL);
  CHECK(map(kVa, u64{0} - kPageSize, 2 * kPageSize, kRW) == -EINVAL);
  CHECK(map(u64{0} - kPageSize, free_frame(), kPageSize, kRW) == -EINVAL);
  CHECK(map(kUserEnd, free_frame(), kPageSize, kRW) == -EPERM);
  CHECK(map(u64{1} << 47, free_frame(), kPageSize, kRW) == -EPERM);
  CHECK(map(0x8000000000000000, free_frame(), kPageSize, kRW) == -EPERM);
  CHECK(map(kUserEnd - kPageSize, free_frame(), kPageSize, kRW) == 0);
  CHECK(map(kVa, free_frame(), kPageSize, 0) == -EPERM);
  CHECK(map(kVa, free_frame(), kPageSize, kRW | 0x100) == -EPERM);
  CHECK(unmap(0, kPageSize) == -EPERM && unmap(kVa, u64{0} - kVa) == -EINVAL);
  CHECK(map(kVa, free_frame(), kPageSize, kRW, 12345) == -ESRCH);
  CHECK(guest_nub_call(kNubCallsMax + 1) == -EINVAL);
  CHECK(call(static_cast<NubOp>(99)) == -ENOSYS);
  CHECK(call(NubOp::copy, kMiB, kMiB, kPageSize) == -ENOSYS);  // the monitor's work
}
void i8_kernel_text_and_relro_are_sealed() {
  u64 text = align_down(reinterpret_cast<u64>(kernel_start), kPageSize);
  u64 relro = align_down(reinterpret_cast<u64>(&relocated), kPageSize);
  for (u64 va : {text, relro, info->image_base}) {
    CHECK(guest_write(at(va)) == 1);
    CHECK(unmap(va, kPageSize) == -EPERM);
    CHECK(protect(va, kPageSize, kRW) == -EPERM);
    CHECK(map(va, free_frame(), kPageSize, kRW) == -EPERM);
  }
}
u64 frame_of_data() {  // its direct-map alias shows the frame
  page_of_data[0] = 77;
  for (u64 pa = 0; pa < end_of_ram(); pa += kPageSize) {
    const volatile u8* alias = at(info->direct_base + pa);
    if (guest_read(const_cast<const u8*>(alias)) != 0 || *alias != 77) continue;
    page_of_data[0] = 78;
    if (*alias == 78) return pa;
    page_of_data[0] = 77;
  }
  fail(__LINE__);
}
void i8_sealed_data_stays_read_only() {
  u64 va = reinterpret_cast<u64>(page_of_data), pa = frame_of_data();
  CHECK(call(NubOp::seal, va, 0, kPageSize) == 0);
  CHECK(guest_write(at(va)) == 1 && page_of_data[0] == 78);
  CHECK(protect(va, kPageSize, kRW) == -EPERM);
  CHECK(unmap(va, kPageSize) == -EPERM);
  CHECK(guest_read(at(info->direct_base + pa)) == 1);
  CHECK(map(kVa, pa, kPageSize, kRW) == -EPERM);
  CHECK(map(kVa, pa - kPageSize, 2 * kPageSize, kRW) == -EPERM);
  CHECK(call(NubOp::seal, kVa, 0, kPageSize) == -EINVAL);
}
void i9_no_new_kernel_text() {
  CHECK(map(upper(), text_frame(), kPageSize, kRX) == -EPERM);
  CHECK(map(upper(), text_frame(), kPageSize, kR) == 0);
  CHECK(protect(upper(), kPageSize, kRX) == -EPERM);
  CHECK(map(kVa, text_frame(), kPageSize, kRX) == 0);
}
void i10_privileged_instructions_fault() {
  for (const char* const* site = privileged_sites; *site != nullptr; ++site) CHECK(guest_jump(*site) == 1 && fault_vector == 13);
}
void i11_msr_whitelist() {
  CHECK(call(NubOp::read_msr, 0xc0000082) == -EPERM);
  CHECK(call(NubOp::write_msr, 0xc0000082, 1) == -EPERM);
  CHECK(call(NubOp::write_msr, 0xc0000080, 0) == -EPERM);
  CHECK(call(NubOp::read_msr, 0x1b) == -EPERM);
}

void mapping_works() {
  CHECK(map(kVa, free_frame(), 4 * kPageSize, kRW) == 0);
  for (u64 i = 0; i < 4; ++i) *at(kVa + i * kPageSize) = static_cast<u8>(i + 1);
  CHECK(*at(info->direct_base + free_frame() + kPageSize) == 2);
  CHECK(protect(kVa, 2 * kPageSize, kR) == 0);
  CHECK(guest_write(at(kVa + kPageSize)) == 1 && guest_write(at(kVa + 2 * kPageSize)) == 0);
  CHECK(fault_vector == 14 && fault_error == 7 && fault_address == kVa + kPageSize);
  CHECK(unmap(kVa + kPageSize, 2 * kPageSize) == 0);
  CHECK(guest_read(at(kVa)) == 0 && guest_read(at(kVa + kPageSize)) == 1 && guest_read(at(kVa + 3 * kPageSize)) == 0);
  CHECK(unmap(kVa, kGiB) == 0 && guest_read(at(kVa)) == 1);
}
void huge_pages_and_splitting() {
  u64 va = 0x40000000;
  CHECK(map(va, free_huge(), kHugePageSize, kRW) == 0);
  *at(va + 5 * kPageSize) = 9;
  CHECK(unmap(va + 3 * kPageSize, kPageSize) == 0);
  CHECK(guest_read(at(va + 3 * kPageSize)) == 1);
  CHECK(*at(va + 5 * kPageSize) == 9);
  CHECK(protect(va, 2 * kPageSize, kR) == 0);
  CHECK(guest_write(at(va)) == 1 && guest_write(at(va + 2 * kPageSize)) == 0);
  CHECK(map(va, free_huge(), kHugePageSize, kRW) == 0);
  CHECK(guest_write(at(va + 3 * kPageSize)) == 0 && guest_write(at(va)) == 0);
  CHECK(unmap(va, kHugePageSize) == 0 && guest_read(at(va + 5 * kPageSize)) == 1);
}
void empty_tables_are_freed() {
  for (u64 i = 1; i < 400; ++i) {  // three new tables each time
    u64 va = i * 300 * kGiB;
    CHECK(map(va, free_frame(), kPageSize, kRW) == 0);
    CHECK(guest_write(at(va)) == 0);
    CHECK(unmap(va, kPageSize) == 0);
    CHECK(guest_read(at(va)) == 1);
  }
}
void tables_can_run_out() {
  i64 result = 0;
  u64 i = 1;
  for (; result == 0 && i < 400; ++i) result = map(i * 300 * kGiB, free_frame(), kPageSize, kRW);
  CHECK(result == -ENOMEM);
  while (--i > 0) CHECK(unmap(i * 300 * kGiB, kPageSize) == 0);
  CHECK(map(kVa, free_frame(), kPageSize, kRW) == 0);
}
void spaces_are_separate() {
  for (int round = 0; round < 50; ++round) {
    CHECK(call(NubOp::space_create) == 0);
    u32 id = static_cast<u32>(shared->calls[0].pa);
    CHECK(id != 0);
    CHECK(map(kVa, free_frame(), kPageSize, kRW, id) == 0);
    CHECK(guest_read(at(kVa)) == 1);
    CHECK(call(NubOp::space_switch, 0, 0, 0, 0, id) == 0);
    CHECK(guest_write(at(kVa)) == 0);
    CHECK(call(NubOp::space_destroy, 0, 0, 0, 0, id) == -EBUSY);
    CHECK(call(NubOp::space_switch) == 0);
    CHECK(guest_read(at(kVa)) == 1);
    CHECK(call(NubOp::space_destroy, 0, 0, 0, 0, id) == 0);
    CHECK(call(NubOp::space_switch, 0, 0, 0, 0, id) == -ESRCH);
  }
  CHECK(call(NubOp::space_destroy) == -ESRCH);
  CHECK(call(NubOp::space_switch, 0, 0, 0, 0, 3) == -ESRCH);
  CHECK(call(NubOp::space_switch, 0, 0, 0, 0, 0xffffffff) == -ESRCH);
}
void batches_stop_at_the_first_error() {
  shared->calls[0] = {NubOp::map, 0, kRW, kVa, free_frame(), kPageSize, 0, 0};
  shared->calls[1] = {NubOp::map, 0, kRW, 0, free_frame(), kPageSize, 0, 0};
  shared->calls[2] = {NubOp::map, 0, kRW, kVa + kPageSize, free_frame(), kPageSize, 0, 0};
  CHECK(guest_nub_call(3) == -EPERM && shared->calls_done == 1);
  CHECK(guest_read(at(kVa)) == 0 && guest_read(at(kVa + kPageSize)) == 1);
}

bool prepare(NubOp op, u64 va, u64 length, u32 flags) {
  shared->calls[0] = {op, 0, flags, va, 0, length, 0, 0};
  shared->calls_prepared = 0;
  monitor[kMonitorTables / 4] = 1;
  return *const_cast<volatile u64*>(&shared->calls_done) == 1 && *const_cast<volatile u64*>(&shared->calls_prepared) == 1;
}
void prepared_entries_are_written_by_apply() {
  CHECK(map(kVa, free_frame(), 3 * kPageSize, kRW) == 0);
  CHECK(guest_write(at(kVa)) == 0);
  CHECK(prepare(NubOp::protect, kVa, 2 * kPageSize, kR));
  CHECK(guest_write(at(kVa)) == 0);
  CHECK(guest_nub_call(HUSK_NUB_APPLY) == 0);
  CHECK(guest_write(at(kVa)) == 1 && guest_read(at(kVa)) == 0 && guest_write(at(kVa + kPageSize)) == 1 && guest_write(at(kVa + 2 * kPageSize)) == 0);
  CHECK(prepare(NubOp::unmap, kVa + kPageSize, kPageSize, 0));
  CHECK(guest_nub_call(HUSK_NUB_APPLY) == 0);
  CHECK(guest_read(at(kVa + kPageSize)) == 1 && guest_read(at(kVa)) == 0);
  CHECK(unmap(kVa, 3 * kPageSize) == 0);  // the counts are right: the table goes, and another one comes
  CHECK(map(kVa, free_frame(), kPageSize, kRW) == 0 && guest_write(at(kVa)) == 0);
}
void i15_prepared_entries_are_void_after_any_call() {
  CHECK(guest_nub_call(HUSK_NUB_APPLY) == 0);  // nothing prepared
  CHECK(map(kVa, free_frame(), 2 * kPageSize, kR) == 0);
  CHECK(prepare(NubOp::protect, kVa, kPageSize, kRW));
  CHECK(call(NubOp::none) == 0 && guest_nub_call(HUSK_NUB_APPLY) == 0);
  CHECK(guest_write(at(kVa)) == 1);
  CHECK(prepare(NubOp::protect, kVa, kPageSize, kRW));
  CHECK(unmap(kVa, kPageSize) == 0 && guest_nub_call(HUSK_NUB_APPLY) == 0);
  CHECK(guest_read(at(kVa)) == 1);
  CHECK(prepare(NubOp::protect, kVa + kPageSize, kPageSize, kRW));
  CHECK(!prepare(NubOp::protect, kVa + kPageSize, kPageSize, kRWX));
  CHECK(guest_nub_call(HUSK_NUB_APPLY) == 0 && guest_write(at(kVa + kPageSize)) == 1);
  CHECK(prepare(NubOp::protect, kVa + kPageSize, kPageSize, kRW));
  CHECK(guest_nub_call(HUSK_NUB_APPLY) == 0 && guest_write(at(kVa + kPageSize)) == 0);
  CHECK(protect(kVa + kPageSize, kPageSize, kR) == 0);
  CHECK(guest_nub_call(HUSK_NUB_APPLY) == 0 && guest_write(at(kVa + kPageSize)) == 1);  // once
}

void exceptions_become_upcalls() {
  u64 before = shared->nub_traps, entry = shared->syscall_entry;
  *const_cast<volatile u64*>(&shared->interrupts_enabled) = 1;
  CHECK(guest_ud() == 0);
  CHECK(seen_busy == 1 && seen_enabled == 0);
  CHECK(shared->upcall_busy == 0 && shared->interrupts_enabled == 0 && shared->syscall_entry == entry);
  CHECK(fault_vector == 6 && shared->nub_traps == before + 1);
}
void trapped_syscalls_keep_registers() {
  u64 before = shared->nub_syscalls;
  CHECK(guest_trap_syscall(39) == 4711);
  CHECK(trapped_rax == 39 && trapped_rcx == reinterpret_cast<u64>(trap_return) && (trapped_r11 & 0x202) == 0x202);
  CHECK(trapped_rsp - reinterpret_cast<u64>(__builtin_frame_address(0)) + 4096 < 8192);
  CHECK(shared->nub_syscalls == before + 1);
}
constexpr u32 kRequestInterrupt = 0x100;
void interrupt_while_disabled_is_pending() {
  monitor[kRequestInterrupt / 4] = 1;
  while (*const_cast<volatile u8*>(&shared->interrupt_pending) == 0) asm volatile("pause" : : : "memory");
  CHECK(interrupt_count == 0 && shared->upcall_busy == 0);
}
void interrupt_while_enabled_is_an_upcall() {
  for (u64 i = 1; i <= 20; ++i) {
    *const_cast<volatile u64*>(&shared->interrupts_enabled) = 1;
    monitor[kRequestInterrupt / 4] = 1;
    while (*const_cast<volatile u64*>(&interrupt_count) < i) asm volatile("pause" : : : "memory");
    asm volatile("" : : : "memory");
    CHECK(shared->interrupts_enabled == 0 && shared->interrupt_pending == 0);
  }
}
void park_returns_on_interrupt() {
  monitor[kMonitorPark / 4] = 1;  // the runner asks for an interrupt from another thread
  CHECK(interrupt_count == 0);
}
// The machine must end in these, and the nub must not be led astray.
void double_upcall_ends_the_machine() {
  shared->upcall_busy = 1;
  guest_ud();
}
void bad_upcall_stack_ends_the_machine() {
  CHECK(unmap(info->upcall_stack_top - kUpcallStackSize, kUpcallStackSize) == 0);
  guest_ud();  // the upcall's first push faults in ring 3
}

// A machine without our monitor: the local APIC's timer through the nub, serial port and PCI configuration from ring 3.
void pc_timer_and_ports() {
  CHECK(on_pc() && info->window_count > 0);
  for (u64 i = 1; i <= 3; ++i) {
    *const_cast<volatile u64*>(&shared->interrupts_enabled) = 1;
    CHECK(call(NubOp::arm_timer, 0, tsc() + 1000000) == 0);
    while (*const_cast<volatile u64*>(&interrupt_count) < i) asm volatile("pause" : : : "memory");
    CHECK(shared->upcall_vector == HUSK_VECTOR_TIMER && call(NubOp::end_of_interrupt) == 0);
  }
  CHECK(call(NubOp::arm_timer, 0, tsc() + 1000000) == 0 && call(NubOp::halt) == 0);
  CHECK(*const_cast<volatile u8*>(&shared->interrupt_pending) != 0 && interrupt_count == 3);
  asm volatile("outl %0, %1" : : "a"(0x80000000), "Nd"(u16{0xcf8}));
  ConfigReader reader({reinterpret_cast<const u8*>(info->config_base), info->config_size});
  u32 found = 0;
  while (auto record = reader.next()) {
    if (record->tag == ConfigTag::tsc_frequency || record->tag == ConfigTag::wall_clock || record->tag == ConfigTag::random_seed) ++found;
  }
  CHECK(found == 3);
}

void tells_its_tsc() { reinterpret_cast<volatile MonitorPage*>(info->monitor_page)->tsc_program_start = tsc(); }
void measure_nub_call() {
  u64 start = tsc();
  for (int i = 0; i < 200; ++i) call(NubOp::none);
  u64 none = (tsc() - start) / 200;
  start = tsc();
  for (u64 i = 0; i < 100; ++i) map(kVa + i * kPageSize, free_frame() + i * kPageSize, kPageSize, kRW);
  u64 one = (tsc() - start) / 100;
  start = tsc();
  map(kVa + kHugePageSize, free_huge() + kPageSize, 256 * kPageSize, kRW);
  u64 run = (tsc() - start) / 256;
  start = tsc();
  for (u32 i = 0; i < 200; ++i) {
    prepare(NubOp::protect, kVa, 100 * kPageSize, i & 1 ? kRW : kR);
    guest_nub_call(HUSK_NUB_APPLY);
  }
  u64 applied = (tsc() - start) / 200;
  start = tsc();
  for (int i = 0; i < 200; ++i) guest_ud();
  u64 upcall = (tsc() - start) / 200;
  start = tsc();
  for (int i = 0; i < 200; ++i) guest_trap_syscall(1);
  auto* page = reinterpret_cast<volatile MonitorPage*>(info->monitor_page);
  page->upcalls = upcall;
  page->syscalls_trapped = (tsc() - start) / 200;
  page->syscalls_called = none;
  page->memory_used_peak = one;
  page->memory_total = run;
  page->tsc_program_start = applied;
}

struct Test {
  const char* name;
  void (*run)();
};
#define TEST(name) \
  { #name, name }
const Test kTests[] = {TEST(hello),
                       TEST(boot_info_is_sound),
                       TEST(i1_write_and_execute_never_together),
                       TEST(i2_memory_is_not_executable_without_jit),
                       TEST(i2_jit_image_may_flip),
                       TEST(i3_image_is_never_writable),
                       TEST(i4_low_addresses_are_refused),
                       TEST(i5_nub_frames_are_refused),
                       TEST(i5_nub_addresses_are_out_of_reach),
                       TEST(i6_foreign_frames_are_refused),
                       TEST(i7_malformed_ranges_are_refused),
                       TEST(i8_kernel_text_and_relro_are_sealed),
                       TEST(i8_sealed_data_stays_read_only),
                       TEST(i9_no_new_kernel_text),
                       TEST(i10_privileged_instructions_fault),
                       TEST(i11_msr_whitelist),
                       TEST(mapping_works),
                       TEST(huge_pages_and_splitting),
                       TEST(empty_tables_are_freed),
                       TEST(tables_can_run_out),
                       TEST(spaces_are_separate),
                       TEST(batches_stop_at_the_first_error),
                       TEST(prepared_entries_are_written_by_apply),
                       TEST(i15_prepared_entries_are_void_after_any_call),
                       TEST(exceptions_become_upcalls),
                       TEST(trapped_syscalls_keep_registers),
                       TEST(interrupt_while_disabled_is_pending),
                       TEST(interrupt_while_enabled_is_an_upcall),
                       TEST(park_returns_on_interrupt),
                       TEST(double_upcall_ends_the_machine),
                       TEST(bad_upcall_stack_ends_the_machine),
                       TEST(tells_its_tsc),
                       TEST(measure_nub_call),
                       TEST(pc_timer_and_ports)};

}  // namespace

extern "C" void guest_upcall() {
  seen_busy = shared->upcall_busy;
  seen_enabled = shared->interrupts_enabled;
  if (shared->upcall_vector >= 32) {
    ++interrupt_count;
    return;
  }
  ++fault_count;
  fault_vector = shared->upcall_vector;
  fault_error = shared->upcall_error;
  fault_address = shared->upcall_address;
  if (shared->upcall_rip == reinterpret_cast<u64>(ud_site)) {
    shared->upcall_rip += 2;
  } else {
    shared->upcall_rip = reinterpret_cast<u64>(recover);
  }
}

extern "C" void guest_main(const BootInfo* boot_info) {
  info = boot_info;
  shared = reinterpret_cast<VcpuShared*>(info->vcpu_shared);
  monitor = reinterpret_cast<volatile u32*>(info->windows[0].virtual_address);
  ConfigReader reader({reinterpret_cast<const u8*>(info->config_base), info->config_size});
  while (auto record = reader.next()) {
    if (record->tag != ConfigTag::program) continue;
    for (const Test& test : kTests) {
      if (record->text() != test.name) continue;
      test.run();
      finish(0);
    }
  }
  fail(__LINE__);
}
