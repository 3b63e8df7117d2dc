// See vm.h.
#include "vmm/kvm/vm.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "vmm/monitor_error.h"

namespace husk::vmm {

bool has_hardware_virtualization() {
  unsigned eax, ebx, ecx = 0, edx;
  bool vmx = __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & (1u << 5)) != 0;
  bool svm = __get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) != 0 && (ecx & (1u << 2)) != 0;
  return vmx || svm;
}

Vm::Vm(const char* kvm_path) : kvm_(open(kvm_path, O_RDWR | O_CLOEXEC)) {
  if (kvm_.get() < 0) {
    throw_errno(std::string("opening ") + kvm_path,
                errno == ENOENT ? "this host has no KVM; load kvm_intel or kvm_amd" : "the user must be allowed to use it, often by the group kvm");
  }
  if (ioctl(kvm_.get(), KVM_GET_API_VERSION, 0) != 12) throw MonitorError(std::string(kvm_path) + " is not a KVM of API version 12");
  for (int needed : {KVM_CAP_IMMEDIATE_EXIT, KVM_CAP_READONLY_MEM, KVM_CAP_IOEVENTFD}) {
    if (ioctl(kvm_.get(), KVM_CHECK_EXTENSION, needed) <= 0) {
      throw MonitorError("this KVM lacks capability " + std::to_string(needed) + "; a newer host kernel is needed");
    }
  }
  int fd;
  do {
    fd = ioctl(kvm_.get(), KVM_CREATE_VM, 0);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) throw_errno("creating the virtual machine");
  vm_ = FileDescriptor(fd);
}

void Vm::install_memory() {
  u32 slot = 0;
  auto install = [&](const GuestMemory::Region& region, u64 from, u64 to, u32 flags) {
    if (from == to) return;
    kvm_userspace_memory_region request{};
    request.slot = slot++;
    request.flags = flags;
    request.guest_phys_addr = region.start + from;
    request.memory_size = align_up(to - from, kPageSize);
    request.userspace_addr = reinterpret_cast<u64>(region.host + from);
    if (ioctl(vm_.get(), KVM_SET_USER_MEMORY_REGION, &request) != 0) throw_errno("giving memory to the virtual machine");
  };
  for (const GuestMemory::Region& region : memory_.regions()) {
    u64 writable = region.writable ? region.size : region.writable_for_kvm;
    install(region, 0, writable, 0);
    install(region, writable, region.size, KVM_MEM_READONLY);
  }
}

void Vm::doorbell(u64 address, u32 size, int event_fd, const u64* value, u32 flags) {
  kvm_ioeventfd request{};
  request.addr = address;
  request.len = size;
  request.fd = event_fd;
  request.datamatch = value != nullptr ? *value : 0;
  request.flags = flags | (value != nullptr ? u32{KVM_IOEVENTFD_FLAG_DATAMATCH} : 0);
  if (ioctl(vm_.get(), KVM_IOEVENTFD, &request) != 0) throw_errno("setting up a device's doorbell");
}
void Vm::add_doorbell(u64 address, u32 size, int event_fd, const u64* value) { doorbell(address, size, event_fd, value, 0); }
void Vm::remove_doorbell(u64 address, u32 size, int event_fd, const u64* value) {
  doorbell(address, size, event_fd, value, KVM_IOEVENTFD_FLAG_DEASSIGN);
}

}  // namespace husk::vmm
