// Port I/O. Ring 3 may use the ports that the nub opens on MachineKind::pc: PCI configuration and the 16550.
// Under the husk monitor there are none: an access faults.
#pragma once

#include "base/types.h"

namespace husk::drivers {

inline void out_u8(u16 port, u8 value) { asm volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
inline void out_u32(u16 port, u32 value) { asm volatile("outl %0, %1" : : "a"(value), "Nd"(port)); }
inline u8 in_u8(u16 port) {
  u8 value;
  asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}
inline u32 in_u32(u16 port) {
  u32 value;
  asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}

}  // namespace husk::drivers
