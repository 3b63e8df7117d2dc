// One virtual machine: the KVM file descriptors, its memory slots and doorbells.
//
// No irqchip and no PIT: interrupts come by Vcpu::request_interrupt. Made by the monitor on its main thread; after the first
// vCPU runs, only add_doorbell may still be called. Several Vms may live in one process.
#pragma once

#include "host/file_descriptor.h"
#include "vmm/guest_memory.h"

struct kvm_cpuid2;

namespace husk::vmm {

using host::FileDescriptor;

// Whether this host's processor has VMX or SVM. A software KVM does without: ring 3 runs as it would in a process, ring 0 is emulated.
bool has_hardware_virtualization();

class Vm {
 public:
  // Opens `kvm_path` (/dev/kvm) and creates the machine. Throws MonitorError.
  explicit Vm(const char* kvm_path = "/dev/kvm");

  GuestMemory& memory() { return memory_; }
  // Hands every region of memory() to KVM; read-only regions become read-only slots. Once, after all regions are there.
  void install_memory();
  // A store of exactly `size` bytes (4) to `address` with this value signals `event_fd` and does not exit.
  // Without `value` any value does. `remove_doorbell` takes the same arguments.
  void add_doorbell(u64 address, u32 size, int event_fd, const u64* value = nullptr);
  void remove_doorbell(u64 address, u32 size, int event_fd, const u64* value = nullptr);

  int fd() const { return vm_.get(); }
  int system_fd() const { return kvm_.get(); }

 private:
  void doorbell(u64 address, u32 size, int event_fd, const u64* value, u32 flags);
  GuestMemory memory_;  // outlives the descriptors: destroyed after them
  FileDescriptor kvm_, vm_;
};

}  // namespace husk::vmm
