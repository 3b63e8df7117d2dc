// KVM requests whose structs end in a flexible array: <linux/kvm.h> gives them a wrong size in C++ (an empty struct has size 1
// there), and with it wrong request numbers and offsets. Ours are as in C.
#pragma once

#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "base/types.h"

namespace husk::vmm {

constexpr u32 kCpuidEntriesMax = 256;
struct CpuidTable {
  u32 count, padding;
  kvm_cpuid_entry2 entries[kCpuidEntriesMax];
};
struct MsrTable {
  u32 count, padding;
  kvm_msr_entry entries[8];
};
static_assert(sizeof(kvm_cpuid_entry2) == 40 && sizeof(kvm_msr_entry) == 16);

constexpr unsigned long kGetSupportedCpuid = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x05, 8);
constexpr unsigned long kSetCpuid = _IOC(_IOC_WRITE, KVMIO, 0x90, 8);
constexpr unsigned long kSetMsrs = _IOC(_IOC_WRITE, KVMIO, 0x89, 8);

}  // namespace husk::vmm
