// The vDSO: code and a data page that the kernel maps into each process; vdso.c is its text.
#pragma once
#undef linux

#include "abi/boot_info.h"
#include "base/result.h"
#include "kernel/mem/address_space.h"

namespace husk::linux {

Result<void> init_vdso(const abi::BootInfo& info);
Result<u64> map_vdso(mem::AddressSpace& space);  // gives the address of its ELF header (AT_SYSINFO_EHDR)
u64 vdso_restart(u64 vdso);                      // address of __husk_restart, see README.md
void update_vdso_clock();                        // after a change of the wall clock

}  // namespace husk::linux
