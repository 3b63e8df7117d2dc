// The table of system calls as data, for restarts and traces.
#pragma once
#undef linux

#include "kernel/linux/syscall.h"

namespace husk::linux {

enum class RestartClass : u8 { no, always, unhandled, timed };

// Name and kinds of arguments, for traces and the log.
struct SyscallText {
  const char* name;
  const char* arguments;
};

bool describe_syscall(u64 number, SyscallText* text);  // false: no such call
const SyscallHandler* syscall_table();                 // kSyscallSlots handlers, none null, without tracing
RestartClass restart_class(u64 number);
void install_syscall_table(bool traced);
void answer_ids_at_once();                      // identity.cc: from now on getpid and its like take a nanosecond; not while tracing
i64 traced_call(u64, u64, u64, u64, u64, u64);  // trace.cc: what every slot holds while tracing

}  // namespace husk::linux
