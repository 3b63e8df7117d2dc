// The nub's C++ side: what its few files share. Ring 0, interrupts off, one call at a time per machine (one vCPU for now).
//
// Read invariants.md before changing anything here.
#pragma once

#include "abi/machine_state.h"

namespace husk::nub {

using abi::NubCall;

// Checks come before effects; the result is 0 or a Linux errno.
using Errno = int;

extern "C" abi::NubState nub_state;

// tables.cc
Errno map(const NubCall& call);
Errno unmap(const NubCall& call);
Errno protect(const NubCall& call);
Errno seal(const NubCall& call);
Errno space_create(u64* id);
Errno space_switch(u32 id);
Errno space_destroy(u32 id);

// pc.cc: what only a machine with a local APIC and a serial port has
void apic_arm(u64 deadline_tsc);
void apic_end_of_interrupt();
extern "C" void apic_start();
void serial_write(const char* text, u64 size);
[[noreturn]] void power_off();

inline u64 read_tsc() {
  u32 low, high;
  asm volatile("rdtsc" : "=a"(low), "=d"(high));
  return u64{high} << 32 | low;
}
inline u64 read_msr(u32 index) {
  u32 low, high;
  asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
  return u64{high} << 32 | low;
}
inline void write_msr(u32 index, u64 value) {
  asm volatile("wrmsr" : : "c"(index), "a"(static_cast<u32>(value)), "d"(static_cast<u32>(value >> 32)) : "memory");
}
inline void out8(u16 port, u8 value) { asm volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
inline u8 in8(u16 port) {
  u8 value;
  asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}
inline void load_cr3(u64 root) { asm volatile("movq %0, %%cr3" : : "r"(root) : "memory"); }

}  // namespace husk::nub
