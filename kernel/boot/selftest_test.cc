// Runs kernel_selftest.elf under KVM while a thread of the host interrupts it all the time, and in QEMU, whose timer interrupts it. Label "guest".
#include <gtest/gtest.h>
#include <x86intrin.h>

#include <atomic>
#include <chrono>
#include <iostream>
#include <thread>

#include "tests/guest/micro_image.h"
#include "tests/guest/micro_machine.h"
#include "vmm/monitor_error.h"

namespace husk {
namespace {

enum class Interrupts : bool { when_due, all_the_time };
constexpr auto kInterruptEvery = std::chrono::microseconds(300);
constexpr auto kLimit = std::chrono::seconds(60);

std::vector<u8> selftest_image() { return test::make_micro_image(HUSK_NUB_PATH, HUSK_SELFTEST_PATH, {}, 0); }

class SelftestMachine : public test::MicroMachine {
 public:
  SelftestMachine() : MicroMachine(selftest_image(), 64 * kMiB) {}
  vmm::RunEnd run(Interrupts interrupts) {
    std::atomic<bool> done = false;
    std::thread interrupter([&] {
      auto end = std::chrono::steady_clock::now() + kLimit;
      while (!done && std::chrono::steady_clock::now() < end) {
        std::this_thread::sleep_for(kInterruptEvery);
        u64 due = deadline_;
        if (interrupts == Interrupts::when_due && (due == 0 || due > __rdtsc())) continue;
        deadline_.compare_exchange_strong(due, 0);
        vcpu_.request_interrupt();
      }
      if (!done) vcpu_.request_stop();
    });
    vmm::RunEnd result = vcpu_.run(*this);
    done = true;
    interrupter.join();
    return result;
  }
  const vmm::Vcpu& vcpu() const { return vcpu_; }

 private:
  void on_store(u64 monitor_register, u64) override {
    if (monitor_register == abi::kMonitorTimer) deadline_ = page().timer_deadline;
    if (monitor_register == abi::kMonitorPark) vcpu_.park(page().park_deadline);
  }

  std::atomic<u64> deadline_ = 0;
};

void run_selftest(Interrupts interrupts) {
  std::unique_ptr<SelftestMachine> machine;
  try {
    machine = std::make_unique<SelftestMachine>();
  } catch (const vmm::MonitorError& error) {
    GTEST_SKIP() << error.what();
  }
  vmm::RunEnd end = machine->run(interrupts);
  abi::MonitorPage page = machine->page();
  ASSERT_EQ(end, vmm::RunEnd::stopped) << machine->vcpu().crash_report();
  EXPECT_EQ(machine->status(), 0u) << "selftest_main.cc:" << page.page_faults;
  std::cout << "interrupts " << machine->vcpu().interrupts_injected() << "; ticks: 1000 calls " << page.syscalls_called
            << ", thread created and ended " << page.syscalls_trapped << ", two yields " << page.upcalls << "\n";
}

TEST(KernelSelftest, passes) { run_selftest(Interrupts::when_due); }
class KernelSelftestQemu : public testing::TestWithParam<const char*> {};
TEST_P(KernelSelftestQemu, passes) {
  if (!test::has_qemu()) GTEST_SKIP() << "no qemu-system-x86_64";
  std::string said = test::run_in_qemu(GetParam(), selftest_image(), 120);
  EXPECT_NE(said.find("PASS"), std::string::npos) << said;
}
INSTANTIATE_TEST_SUITE_P(machines, KernelSelftestQemu, testing::Values("microvm", "q35"), [](const auto& info) { return std::string(info.param); });

TEST(KernelSelftest, passes_under_interrupts) { run_selftest(Interrupts::all_the_time); }

}  // namespace
}  // namespace husk
