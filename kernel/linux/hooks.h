// The hooks of kernel/sched/traps.h and what they share.
#pragma once
#undef linux

#include "kernel/cpu.h"
#include "kernel/mem/address_space.h"
#include "kernel/sched/sched.h"

namespace husk::linux {

struct Process;
struct Task;

bool handle_page_fault(TrapFrame& frame, mem::Access access, bool from_program);  // traps.cc
void handle_exception(TrapFrame& frame);                                          // traps.cc
void before_return(TrapFrame& frame);                                             // signal_delivery.cc
void pre_empted(TrapFrame& frame);                                                // signal_delivery.cc
// The program was interrupted inside a restartable sequence: sends it to its abort address.
void abort_sequence_if_any(Task& task, TrapFrame& frame);
void wake_signal_waiters(Process& process);  // sigtimedwait and signalfd
sched::WaitQueue& signal_wait_queue();

}  // namespace husk::linux
