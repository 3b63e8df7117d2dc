// Runs kernel_selftest.elf under KVM while a thread of the host interrupts it all the time, and in QEMU, whose timer interrupts it. Label "guest".
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>
#include <x86intrin.h>

#include <atomic>
#include <chrono>
#include <iostream>
#include <thread>

#include "abi/monitor_device.h"
#include "tests/guest/micro_image.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/loader/loader.h"
#include "vmm/monitor_error.h"

namespace husk {
namespace {

enum class Interrupts : bool { when_due, all_the_time };
constexpr auto kInterruptEvery = std::chrono::microseconds(300);
constexpr auto kLimit = std::chrono::seconds(60);

std::vector<u8> selftest_image() { return test::make_micro_image(HUSK_NUB_PATH, HUSK_SELFTEST_PATH, {}, 0); }

class SelftestMachine : public vmm::MmioHandler {
 public:
  SelftestMachine() {
    std::vector<u8> image = selftest_image();
    int fd = memfd_create("image", MFD_CLOEXEC);
    if (write(fd, image.data(), image.size()) != static_cast<ssize_t>(image.size())) abort();
    file_ = vmm::ImageFile::from_fd(vmm::FileDescriptor(fd), "self-test image");
    u8 entropy[32];
    if (getrandom(entropy, sizeof(entropy), 0) != sizeof(entropy)) abort();
    abi::DeviceWindow window{abi::WindowKind::monitor_device, 0, abi::kMonitorDeviceAddress, kPageSize, 0};
    loaded_ = vmm::load_machine(vm_, file_, {64 * kMiB, {}, entropy, {&window, 1}, vcpu_.features(), 0});
    vcpu_.load(loaded_.cpu);
  }
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
  abi::MonitorPage page() {
    abi::MonitorPage result;
    vm_.memory().read(loaded_.monitor_page, &result);
    return result;
  }
  u64 status() const { return status_; }
  const vmm::Vcpu& vcpu() const { return vcpu_; }

 private:
  Next mmio_store(PhysAddr address, u32, u64 value) override {
    switch (address.value - abi::kMonitorDeviceAddress) {
      case abi::kMonitorPowerOff: status_ = value; return Next::stop;
      case abi::kMonitorTimer: deadline_ = page().timer_deadline; return Next::resume;
      case abi::kMonitorPark: vcpu_.park(page().timer_deadline); return Next::resume;
    }
    return Next::resume;
  }
  u64 mmio_load(PhysAddr, u32) override { return 0; }

  vmm::Vm vm_;
  vmm::Vcpu vcpu_{vm_, 0};
  vmm::ImageFile file_;
  vmm::LoadedMachine loaded_{};
  u64 status_ = ~u64{0};
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
