// The table of system calls as data, for restarts and traces.
#pragma once
#undef linux

#include "kernel/linux/syscall.h"

namespace husk::linux {

enum class RestartClass : u8 { no, always, unhandled, timed };
enum class SupportLevel : u8 { full, partial, ignored, missing };

struct SyscallEntry {
  const char* name;  // null: no such call
  SyscallHandler handler;
  const char* arguments;
  RestartClass restart;
  SupportLevel level;
};

const SyscallEntry* syscall_entry(u64 number);  // null beyond the table
const SyscallHandler* syscall_table();          // kSyscallSlots handlers, none null, without tracing
RestartClass restart_class(u64 number);
void install_syscall_table(bool traced);
const SyscallHandler* traced_table();           // trace.cc

}  // namespace husk::linux
