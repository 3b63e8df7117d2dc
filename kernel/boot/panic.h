// The kernel's panic. husk::panic (base/panic.h) and husk::panic_with_registers (kernel/sched/traps.h) end here.
#pragma once

#include <span>

#include "abi/boot_info.h"
#include "base/types.h"

namespace husk {

// Where a crash record (control_records.h) goes once the consoles work; must not block or allocate. Before that, and in any
// case, the text goes through the nub.
using CrashSink = void (*)(std::span<const u8> record);
void init_panic(const abi::BootInfo& info);
void set_crash_sink(CrashSink sink);

constexpr u32 kPanicStatus = 125;  // exit status of a machine that did not end by its program

}  // namespace husk
