// What CPUID says, remembered: the instruction leaves a virtual machine each time (27 us on the machines this was made for), and the C library
// alone executes it some sixty times at each start. Also answers the program's own, which the image builder makes into calls.
//
// Nothing that a leaf says changes while a machine with one vCPU runs: the kernel sets CR4 and XCR0 before it asks.
#pragma once

#include "base/types.h"

namespace husk {

struct CpuidResult {
  u32 eax, ebx, ecx, edx;
};
CpuidResult cpuid(u32 leaf, u32 subleaf = 0);

}  // namespace husk
