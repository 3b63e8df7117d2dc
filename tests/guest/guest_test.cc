// Runs the micro-guest's tests (guest.cc), each in a machine of its own under KVM. Label "guest"; skipped where KVM is unusable.
#include <gtest/gtest.h>
#include <string.h>
#include <x86intrin.h>

#include <atomic>
#include <chrono>
#include <iostream>
#include <thread>

#include "abi/boot_config.h"
#include "tests/guest/micro_image.h"
#include "tests/guest/micro_machine.h"
#include "vmm/loader/table_editor.h"
#include "vmm/monitor_error.h"

namespace husk::test {
namespace {

using vmm::RunEnd;

constexpr u64 kRequestInterrupt = 0x100;

struct Outcome {
  RunEnd end;
  u64 status;
  std::string report;
  abi::MonitorPage page;
  abi::BootInfo info;
};

class Machine : public MicroMachine {
 public:
  using MicroMachine::MicroMachine;
  Outcome run() {
    std::thread watchdog([this] {
      for (int i = 0; i < 2000 && !done_; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      vcpu_.request_stop();
    });
    RunEnd end = vcpu_.run(*this);
    done_ = true;
    watchdog.join();
    if (helper_.joinable()) helper_.join();
    Outcome outcome{end, status(), vcpu_.crash_report(), page(), {}};
    vm_.memory().read(loaded_.boot_info, &outcome.info);
    return outcome;
  }

 private:
  void on_store(u64 monitor_register, u64 value) override {
    switch (monitor_register) {
      case abi::kMonitorTables: vmm::TableEditor(vm_.memory(), loaded_.nub_state, loaded_.vcpu_shared).run(static_cast<u32>(value)); break;
      case kRequestInterrupt: vcpu_.request_interrupt(); break;
      case abi::kMonitorPark:
        helper_ = std::thread([this] {
          std::this_thread::sleep_for(std::chrono::milliseconds(20));
          vcpu_.request_interrupt();
        });
        vcpu_.park(0);
        break;
    }
  }

  std::atomic<bool> done_{false};
  std::thread helper_;
};

std::vector<u8> image_for(const std::string& test) {
  u32 flags = test.find("jit_image") != std::string::npos ? u32{abi::kImageJit} : 0u;
  std::vector<u8> config;
  abi::append_config(config, abi::ConfigTag::program, test);
  return make_micro_image(HUSK_NUB_PATH, HUSK_GUEST_PATH, config, flags);
}

Outcome run_guest(const std::string& test, u64 ram_size = 16 * kMiB) { return Machine(image_for(test), ram_size).run(); }

bool kvm_usable() {
  try {
    vmm::Vm vm;
    return true;
  } catch (const vmm::MonitorError& error) {
    std::cerr << "skipped: " << error.what() << "\n";
    return false;
  }
}

class Guest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!kvm_usable()) GTEST_SKIP();
  }
};
class GuestEnds : public Guest {};

TEST_P(Guest, passes) {
  Outcome outcome = run_guest(GetParam());
  ASSERT_EQ(outcome.end, RunEnd::stopped) << outcome.report;
  EXPECT_EQ(outcome.status, 0u) << "guest.cc:" << outcome.page.page_faults;
}
TEST_P(GuestEnds, with_a_fatal_trap) {
  Outcome outcome = run_guest(GetParam());
  ASSERT_EQ(outcome.end, RunEnd::crashed);
  EXPECT_EQ(outcome.report.rfind("the nub stopped the machine", 0), 0u) << outcome.report;
}

// What needs nothing but the nub, under whatever monitor; then what asks something of ours.
const char* const kAnywhere[] = {"hello",
                                 "boot_info_is_sound",
                                 "i1_write_and_execute_never_together",
                                 "i2_memory_is_not_executable_without_jit",
                                 "i2_jit_image_may_flip",
                                 "i3_image_is_never_writable",
                                 "i4_low_addresses_are_refused",
                                 "i5_nub_frames_are_refused",
                                 "i5_nub_addresses_are_out_of_reach",
                                 "i6_foreign_frames_are_refused",
                                 "i7_malformed_ranges_are_refused",
                                 "i8_kernel_text_and_relro_are_sealed",
                                 "i8_sealed_data_stays_read_only",
                                 "i9_no_new_kernel_text",
                                 "i10_privileged_instructions_fault",
                                 "i11_msr_whitelist",
                                 "mapping_works",
                                 "huge_pages_and_splitting",
                                 "empty_tables_are_freed",
                                 "tables_can_run_out",
                                 "spaces_are_separate",
                                 "batches_stop_at_the_first_error",
                                 "exceptions_become_upcalls",
                                 "trapped_syscalls_keep_registers"};
const char* const kOurMonitor[] = {"prepared_entries_are_written_by_apply", "i15_prepared_entries_are_void_after_any_call",
                                   "interrupt_while_disabled_is_pending", "interrupt_while_enabled_is_an_upcall", "park_returns_on_interrupt"};
const char* const kFatal[] = {"double_upcall_ends_the_machine", "bad_upcall_stack_ends_the_machine"};
auto name_of = [](const auto& info) { return std::string(info.param); };
INSTANTIATE_TEST_SUITE_P(nub, Guest, testing::ValuesIn(kAnywhere), name_of);
INSTANTIATE_TEST_SUITE_P(monitor, Guest, testing::ValuesIn(kOurMonitor), name_of);
INSTANTIATE_TEST_SUITE_P(nub, GuestEnds, testing::ValuesIn(kFatal), name_of);

class Boot : public Guest {};
TEST_F(Boot, works_with_4_mib_and_with_8_gib) {
  for (u64 size : {4 * kMiB, 64 * kMiB, 512 * kMiB, 8 * kGiB}) {
    Outcome outcome = run_guest("boot_info_is_sound", size);
    EXPECT_EQ(outcome.end, RunEnd::stopped) << outcome.report;
    EXPECT_EQ(outcome.status, 0u) << size << " guest.cc:" << outcome.page.page_faults;
    std::cout << size / kMiB << " MiB: nub " << outcome.info.nub_size / kKiB << " KiB, free from " << outcome.info.free_ranges[0].start / kKiB
              << " KiB\n";
  }
}
TEST_F(Boot, addresses_are_random) {
  Outcome a = run_guest("hello"), b = run_guest("hello");
  EXPECT_NE(a.info.kernel_base, b.info.kernel_base);
  EXPECT_NE(a.info.direct_base, b.info.direct_base);
  EXPECT_NE(a.info.image_base, b.info.image_base);
  EXPECT_NE(a.info.kernel_area_start, b.info.kernel_area_start);
  EXPECT_NE(memcmp(a.info.entropy, b.info.entropy, 32), 0);
}
TEST_F(Boot, guests_tsc_is_the_hosts) {
  u64 before = __rdtsc();
  Outcome outcome = run_guest("tells_its_tsc");
  ASSERT_EQ(outcome.end, RunEnd::stopped) << outcome.report;
  EXPECT_GE(outcome.page.tsc_program_start, before);
  EXPECT_LE(outcome.page.tsc_program_start, __rdtsc());
}
TEST_F(Boot, a_tiny_machine_is_refused_in_words) { EXPECT_THROW(run_guest("hello", 64 * kKiB), vmm::MonitorError); }
TEST_F(Boot, measure) {
  Outcome outcome = run_guest("measure_nub_call", 64 * kMiB);
  ASSERT_EQ(outcome.end, RunEnd::stopped) << outcome.report;
  auto us = [&](u64 ticks) { return static_cast<double>(ticks) / 2600.0; };
  std::cout << "empty nub call " << us(outcome.page.syscalls_called) << " us, map one page " << us(outcome.page.memory_used_peak)
            << " us, per page of 256 " << us(outcome.page.memory_total) << " us, 100 pages protected by apply " << us(outcome.page.tsc_program_start)
            << " us, exception to upcall and back " << us(outcome.page.upcalls) << " us, trapped syscall " << us(outcome.page.syscalls_trapped)
            << " us (at 2.6 GHz)\n";
  auto start = std::chrono::steady_clock::now();
  constexpr int kRuns = 10;
  std::vector<u8> image = image_for("hello");
  for (int i = 0; i < kRuns; ++i) Machine(image, 64 * kMiB).run();
  std::cout << "machine created, booted, destroyed: "
            << std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count() / kRuns << " ms\n";
}

// The same nub under QEMU's own processor, entered by PVH: ring 0 is executed there, not emulated by a host's KVM. The result is on the serial port.
using QemuCase = std::tuple<const char*, const char*>;
class Qemu : public testing::TestWithParam<QemuCase> {
 protected:
  void SetUp() override {
    if (!has_qemu()) GTEST_SKIP() << "no qemu-system-x86_64";
  }
  std::string output() {
    auto [machine, test] = GetParam();
    return run_in_qemu(machine, image_for(test));
  }
};
class QemuEnds : public Qemu {};
TEST_P(Qemu, passes) {
  std::string said = output();
  EXPECT_NE(said.find("PASS"), std::string::npos) << said;
}
TEST_P(QemuEnds, with_a_fatal_trap) {
  std::string said = output();
  EXPECT_NE(said.find("husk nub: fatal trap"), std::string::npos) << said;
  EXPECT_EQ(said.find("PASS"), std::string::npos) << said;
}
auto name_of_case = [](const testing::TestParamInfo<QemuCase>& info) { return std::string(std::get<0>(info.param)) + "_" + std::get<1>(info.param); };
const auto kMachines = testing::Values("microvm", "q35");
INSTANTIATE_TEST_SUITE_P(nub, Qemu, testing::Combine(kMachines, testing::ValuesIn(kAnywhere)), name_of_case);
INSTANTIATE_TEST_SUITE_P(pc, Qemu, testing::Combine(kMachines, testing::Values("pc_timer_and_ports")), name_of_case);
INSTANTIATE_TEST_SUITE_P(nub, QemuEnds, testing::Combine(kMachines, testing::ValuesIn(kFatal)), name_of_case);

TEST(ImageHeader, every_field_is_checked) {
  std::vector<u8> image = image_for("hello");
  abi::ImageHeader good;
  memcpy(&good, image.data() + abi::kImageHeaderOffset, sizeof(good));
  ASSERT_EQ(vmm::check_image_header(good, image.size()), nullptr);
  EXPECT_NE(vmm::check_image_header(good, image.size() + 1), nullptr);
  // Any 8 bytes of the header, replaced by extreme values, are refused or make a machine that still has all its parts in the file.
  for (size_t offset = 0; offset + 8 <= offsetof(abi::ImageHeader, nub_sha256); offset += 8) {
    for (u64 value : {~u64{0}, u64{1} << 63, ~u64{0} - kPageSize + 1, u64{0}, image.size() + kPageSize, u64{0x7fffffffffff}}) {
      abi::ImageHeader bad = good;
      memcpy(reinterpret_cast<u8*>(&bad) + offset, &value, 8);
      if (vmm::check_image_header(bad, image.size()) != nullptr) continue;
      for (u32 i = 0; i < bad.kernel_part_count; ++i) {
        EXPECT_LE(bad.kernel_parts[i].file_offset + bad.kernel_parts[i].file_size, image.size());
      }
    }
  }
}

}  // namespace
}  // namespace husk::test
