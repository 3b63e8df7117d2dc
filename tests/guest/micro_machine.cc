// See micro_machine.h.
#include "tests/guest/micro_machine.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

namespace husk::test {

MicroMachine::MicroMachine(const std::vector<u8>& image, u64 ram_size) {
  int fd = memfd_create("image", MFD_CLOEXEC);
  if (write(fd, image.data(), image.size()) != static_cast<ssize_t>(image.size())) abort();
  file_ = vmm::ImageFile::from_fd(vmm::FileDescriptor(fd), "micro image");
  u8 entropy[32];
  if (getrandom(entropy, sizeof(entropy), 0) != sizeof(entropy)) abort();
  abi::DeviceWindow window{abi::WindowKind::monitor_device, 0, abi::kMonitorDeviceAddress, kPageSize, 0};
  loaded_ = vmm::load_machine(vm_, file_, {ram_size, {}, entropy, {&window, 1}, vcpu_.features(), 0});
  vcpu_.load(loaded_.cpu);
}

abi::MonitorPage MicroMachine::page() {
  abi::MonitorPage result;
  vm_.memory().read(loaded_.monitor_page, &result);
  return result;
}

MicroMachine::Next MicroMachine::mmio_store(PhysAddr address, u32, u64 value) {
  u64 monitor_register = address.value - abi::kMonitorDeviceAddress;
  if (monitor_register != abi::kMonitorPowerOff) {
    on_store(monitor_register, value);
    return Next::resume;
  }
  status_ = value;
  return Next::stop;
}

}  // namespace husk::test
