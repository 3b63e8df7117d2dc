// What the monitor is told about a program that died by a signal.
#pragma once
#undef linux

#include "kernel/cpu.h"
#include "kernel/linux/signal_state.h"

namespace husk::linux {

struct Task;
void report_crash(Task& task, const TrapFrame& frame, const SignalInfo& info);

}  // namespace husk::linux
