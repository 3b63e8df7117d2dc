// A kernel without Linux: small programs whose threads test entry, return, pre-emption and faults on the machine.
//
// Status 0, or 1 with the failed line in MonitorPage::page_faults; on a PC, PASS or the line on the serial port. Figures: MonitorPage::syscalls_called: ticks of a call;
// syscalls_trapped: ticks of a thread's creation and end; upcalls: ticks of a yield to another thread and back.
#include "kernel/boot/selftest.h"

#include "abi/image_format.h"
#include "abi/monitor_device.h"
#include "kernel/boot/panic.h"
#include "kernel/mem/frames.h"
#include "kernel/mem/user_copy.h"
#include "kernel/sched/sched.h"
#include "kernel/sched/traps.h"
#include "platform/platform.h"

extern "C" husk::u64 husk_user_copy(void* to, const void* from, husk::u64 size);  // kernel/mem/user_access.S: bytes left, faults do not end it
extern "C" const char program_start[], program_contract[], program_spin[], program_set[], program_time[], program_vector[], program_faults[];

namespace husk {
namespace {

constexpr VirtAddr kText{0x400000}, kData{0x500000};
constexpr u64 kDataSize = 64 * kPageSize, kLazy = 0x600000, kLazyEnd = 0x602000, kBad = 0x700000;
constexpr u64 kTimedCalls = 1'000'000, kTimedThreads = 2000, kTimedYields = 20'000;
constexpr u64 kFlagsAll = 0x8d5, kDirection = 0x400;

struct Area {
  u64 flags_in, by_trap, rounds;
  u64 after[17];
};
static_assert(__builtin_offsetof(Area, after) == AREA_AFTER);

constinit const abi::BootInfo* boot_info = nullptr;
constinit sched::Thread* tester = nullptr;
constinit u32 alive = 0;
constinit u64 reported = 0;

constinit abi::MonitorPage nobodys_page = {};  // a PC's

abi::MonitorPage& monitor_page() {
  return boot_info->monitor_page != 0 ? *reinterpret_cast<abi::MonitorPage*>(boot_info->monitor_page) : nobodys_page;
}
void say(const char* text) {
  if (boot_info->machine != abi::MachineKind::pc) return;
  for (; *text != 0; ++text) asm volatile("outb %0, %1" : : "a"(*text), "Nd"(u16{0x3f8}));
}
[[noreturn]] void fail(int line) {
  monitor_page().page_faults = static_cast<u64>(line);
  char text[] = "FAIL selftest_main.cc:0000\r\n";
  for (int i = 25; i > 21; --i, line /= 10) text[i] = static_cast<char>('0' + line % 10);
  say(text);
  platform::power_off(1);
}
#define CHECK(condition) ((condition) ? void() : fail(__LINE__))

// --- system calls ----------------------------------------------------------------------------------------------
i64 missing(u64, u64, u64, u64, u64, u64) { return -38; }
i64 hash(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f) { return static_cast<i64>(a + 3 * b + 5 * c + 7 * d + 11 * e + 13 * f); }
i64 check_registers(u64 address, u64, u64, u64, u64, u64) {
  const Area& area = *reinterpret_cast<const Area*>(address);
  const u64* r = area.after;
  constexpr u64 k = 0x1111111111111111;
  CHECK(r[0] == static_cast<u64>(hash(4 * k, 3 * k, 2 * k, 10 * k, 8 * k, 9 * k)));
  u64 rsp = sched::current()->frame()->rsp, flags = area.flags_in | 0x202;
  CHECK(r[1] == k && r[3] == 2 * k && r[4] == 3 * k && r[5] == 4 * k && r[6] == 5 * k && r[7] == rsp);
  CHECK(r[2] - kText.value < kPageSize);
  CHECK(r[8] == 8 * k && r[9] == 9 * k && r[10] == 10 * k && r[12] == 12 * k && r[13] == 13 * k && r[14] == 14 * k && r[15] == 15 * k);
  CHECK(r[11] == flags);
  CHECK(r[16] == flags);
  return 0;
}
i64 leave(u64, u64, u64, u64, u64, u64) {
  if (--alive == 0) sched::wake(tester);
  sched::exit_current();
}
i64 give_way(u64, u64, u64, u64, u64, u64) {
  sched::yield();
  return 0;
}
i64 parent(u64, u64, u64, u64, u64, u64) { return 1; }
i64 report(u64 value, u64, u64, u64, u64, u64) {
  reported = value;
  return 0;
}
i64 copy(u64 address, u64, u64, u64, u64, u64) {
  u64 value;
  auto result = mem::copy_from_user(&value, address, sizeof(value));
  return result.ok() ? 0 : -result.error().code();
}
i64 failed(u64, u64, u64, u64, u64, u64) { fail(__LINE__); }

struct Table {
  sched::SyscallFunction call[sched::kSyscallSlots];
  constexpr Table() {
    for (auto& slot : call) slot = missing;
    call[CALL_HASH] = hash;
    call[CALL_CHECK] = check_registers;
    call[CALL_EXIT] = leave;
    call[CALL_YIELD] = give_way;
    call[CALL_PARENT] = parent;
    call[CALL_REPORT] = report;
    call[CALL_COPY] = copy;
    call[CALL_FAIL] = failed;
  }
};
constexpr Table table;

// --- traps -----------------------------------------------------------------------------------------------------
void map_memory(VirtAddr at, u64 size) {
  platform::PageTableBatch batch(0);
  for (u64 done = 0; done < size; done += kPageSize) {
    auto frame = mem::allocate_frames(0, mem::Zeroed::yes);
    CHECK(frame.ok());
    CHECK(batch.map(at + done, frame.value(), kPageSize, platform::kRead | platform::kWrite).ok());
  }
  CHECK(batch.flush().ok());
}
bool page_fault(TrapFrame& frame, mem::Access, bool from_program) {
  if (frame.address >= kLazy && frame.address < kLazyEnd) {
    map_memory({align_down(frame.address, kPageSize)}, kPageSize);
    return true;
  }
  CHECK(!from_program);
  return false;
}
void exception(TrapFrame&) { fail(__LINE__); }
void before_return(TrapFrame&) { fail(__LINE__); }

// --- programs --------------------------------------------------------------------------------------------------
struct Start {
  const char* program;
  u64 rdi, rsi, rsp;
};

void enter(void* argument) {
  const Start& start = *static_cast<const Start*>(argument);
  TrapFrame& frame = *sched::current()->frame();
  frame.rip = kText.value + static_cast<u64>(start.program - program_start);
  frame.rdi = start.rdi;
  frame.rsi = start.rsi;
  frame.rsp = start.rsp;
}

void launch(Start& start) {
  auto thread = sched::Thread::create(enter, &start);
  CHECK(thread.ok());
  ++alive;
  sched::start(thread.release());
}

void wait_for_all() {
  while (alive > 0) {
    sched::prepare_to_block();
    (void)sched::block(time::kForever, sched::Interruptible::no);
  }
}

u64 stack_of(u64 index) { return kData.value + (index + 1) * 8 * kPageSize; }

void map_program() {
  const auto& header = *reinterpret_cast<const abi::ImageHeader*>(boot_info->image_base + abi::kImageHeaderOffset);
  u64 offset = reinterpret_cast<u64>(program_start) - boot_info->kernel_base;
  for (u32 i = 0; i < header.kernel_part_count; ++i) {
    const abi::ImagePart& part = header.kernel_parts[i];
    if (offset - part.virtual_offset >= part.memory_size) continue;
    PhysAddr frame{boot_info->image_physical + part.file_offset + offset - part.virtual_offset};
    platform::PageTableBatch batch(0);
    CHECK(batch.map(kText, frame, kPageSize, platform::kRead | platform::kExecute).ok());
    CHECK(batch.flush().ok());
  }
  map_memory(kData, kDataSize);
}

void test_contract(u64 flags, bool by_trap, u64 rounds) {
  Area& area = *reinterpret_cast<Area*>(kData.value);
  area = {flags, by_trap, rounds, {}};
  Start start{program_contract, kData.value, 0, stack_of(0)};
  launch(start);
  wait_for_all();
}

void test_preemption() {
  *reinterpret_cast<u32*>(kData.value) = 0;
  Start spin{program_spin, kData.value, 0, stack_of(0)}, set{program_set, kData.value, 0, stack_of(1)};
  launch(spin);
  launch(set);
  wait_for_all();
}

void test_vector_state() {
  Start starts[4];
  for (u64 i = 0; i < 4; ++i) {
    starts[i] = {program_vector, 0x1000 * (i + 1), 0, stack_of(i)};
    launch(starts[i]);
  }
  wait_for_all();
}

void test_faults() {
  Start start{program_faults, kLazy, kBad, stack_of(0)};
  launch(start);
  wait_for_all();
}

// Below each kernel stack a page is missing, though another stack lies behind it.
void find_guard(void*) {
  u64 page = align_down(reinterpret_cast<u64>(__builtin_frame_address(0)), kPageSize), mapped = 0;
  u8 byte;
  while (husk_user_copy(&byte, reinterpret_cast<const void*>(page - mapped * kPageSize), 1) == 0)
    CHECK(++mapped <= sched::kKernelStackSize / kPageSize);
  CHECK(mapped > 0);
  leave(0, 0, 0, 0, 0, 0);
}

void test_stack_guards() {
  for (int i = 0; i < 8; ++i) {
    auto thread = sched::Thread::create(find_guard, nullptr);
    CHECK(thread.ok());
    ++alive;
    sched::start(thread.release());
  }
  wait_for_all();
}

void nothing(void*) { leave(0, 0, 0, 0, 0, 0); }
void yields(void*) {
  for (u64 i = 0; i < kTimedYields; ++i) sched::yield();
  leave(0, 0, 0, 0, 0, 0);
}

void measure() {
  Start start{program_time, kTimedCalls, 0, stack_of(0)};
  launch(start);
  wait_for_all();
  monitor_page().syscalls_called = reported / (kTimedCalls / 1000);
  u64 begin = platform::ticks();
  for (u64 i = 0; i < kTimedThreads; ++i) {
    auto thread = sched::Thread::create(nothing, nullptr);
    CHECK(thread.ok());
    ++alive;
    sched::start(thread.release());
    wait_for_all();
  }
  monitor_page().syscalls_trapped = (platform::ticks() - begin) / kTimedThreads;
  begin = platform::ticks();
  for (int i = 0; i < 2; ++i) {
    ++alive;
    sched::start(sched::Thread::create(yields, nullptr).release());
  }
  wait_for_all();
  monitor_page().upcalls = (platform::ticks() - begin) / kTimedYields;
}

void run_tests(void*) {
  tester = sched::current();
  map_program();
  for (bool by_trap : {false, true}) {
    for (u64 flags : {u64{0}, u64{1}, kFlagsAll, u64{0x800}, kDirection | kFlagsAll}) test_contract(flags, by_trap, 1000);
  }
  test_faults();
  test_stack_guards();
  test_vector_state();
  test_preemption();
  test_contract(kFlagsAll, false, 300'000);  // with the host's interrupts
  measure();
  say("PASS\r\n");
  platform::power_off(0);
}

}  // namespace

extern "C" [[noreturn]] void husk_main(const abi::BootInfo& info) {
  boot_info = &info;
  init_panic(info);
  platform::init(info);
  sched::init(reinterpret_cast<abi::VcpuShared*>(info.vcpu_shared));
  mem::init_frames(info);
  time::init(2'600'000'000, info.start_tsc, 0, info.start_tsc);
  sched::set_trap_hooks({page_fault, exception, before_return});
  sched::set_syscall_table(table.call);
  auto thread = sched::Thread::create(run_tests, nullptr);
  CHECK(thread.ok());
  sched::start(thread.release());
  sched::run_idle();
}

}  // namespace husk
