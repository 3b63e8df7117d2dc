// The frame on the program's stack while a signal handler runs (struct rt_sigframe of x86-64 Linux).
#pragma once
#undef linux

#include "base/result.h"
#include "base/types.h"
#include "kernel/cpu.h"
#include "kernel/linux/task.h"

namespace husk::linux {

u64 signal_frame_size_max();  // AT_MINSIGSTKSZ
// Builds the frame for a handler and points the registers at it. EFAULT if the stack cannot take it.
Result<void> push_signal_frame(Task& task, TrapFrame& frame, const SignalInfo& info, const SignalAction& action, u64 mask_to_restore);
// rt_sigreturn(2): the registers, mask and alternate stack that the frame holds.
Result<void> pop_signal_frame(Task& task, TrapFrame& frame);

}  // namespace husk::linux
