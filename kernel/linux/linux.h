// What boot/main.cc and sched/ need of the Linux personality.
//
// The hooks that traps call (page_fault, exception, before_return) are those of kernel/sched/traps.h.
#pragma once
#undef linux

#include <span>

#include "abi/boot_config.h"
#include "abi/boot_info.h"
#include "base/ref.h"
#include "base/result.h"
#include "kernel/vfs/inode.h"
#include "kernel/vfs/tty.h"

namespace husk::linux {

// The boot configuration, decoded once. Strings point into the configuration.
struct Configuration {
  std::span<const u8> bytes;  // argument and environment records are read from here again
  std::string_view program, directory = "/", host_name = "husk";
  u32 uid = 0, gid = 0;
  bool terminal[3] = {};
  u16 rows = 0, columns = 0;
  bool trace = false, randomise = true, jit = false;
  u64 stack_limit = 8 * kMiB;
};
Configuration decode_configuration(std::span<const u8> bytes);

// Before the file systems are made: system-call table, signal hooks, the record handler of the control console. start_tsc: when the kernel's first
// instruction ran.
void init(const abi::BootInfo& info, u64 start_tsc, const Configuration& configuration);

// Makes the first process and starts it: loads the program, opens descriptors 0 to 2. Errors end the machine with a message and
// status 126 or 127. Runs on a thread that may block; returns once the program's first thread is runnable.
void start_init(vfs::Tree& tree, Ref<vfs::File> standard_input, Ref<vfs::File> standard_output, Ref<vfs::File> standard_error);

const Configuration& configuration();

// For the machine's terminal: its signals go to the first process. set_terminal(): window sizes from the monitor go to it.
vfs::TerminalHandler& terminal_handler();
void set_terminal(Ref<vfs::File> terminal);

// Makes /proc and /sys (proc*.cc): boot mounts them.
Result<Ref<vfs::Inode>> make_proc();
Result<Ref<vfs::Inode>> make_sys();

// The end: exit record, queues drained, power off. `signal` 0 if the program exited.
[[noreturn]] void end_machine(u32 status, u32 signal);

}  // namespace husk::linux
