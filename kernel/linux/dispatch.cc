// The dispatch table, made from syscalls.def.
#include "kernel/linux/dispatch.h"

#include <string.h>

#include "kernel/log.h"
#include "kernel/sched/sched.h"
#include "kernel/sched/traps.h"

// Every handler that the table names; those of missing calls are never referred to.
#define SYSCALL(number, name, level, restart, arguments, note) \
  extern "C" ::husk::i64 sys_##name(::husk::u64, ::husk::u64, ::husk::u64, ::husk::u64, ::husk::u64, ::husk::u64);
#include "kernel/linux/syscalls.def"
#undef SYSCALL

namespace husk::linux {
namespace {

i64 missing(u64, u64, u64, u64, u64, u64) {
  static constinit u64 reported[kSyscallSlots / 64] = {};
  u64 number = sched::current()->frame()->orig_rax;
  if (number >= kSyscallSlots || (reported[number / 64] >> (number % 64) & 1) != 0) return -ENOSYS;
  reported[number / 64] |= u64{1} << (number % 64);
  SyscallText text = {"unknown", ""};
  (void)describe_syscall(number, &text);
  log(LogLevel::info, "system call %lu (%s) is missing: ENOSYS", number, text.name);
  return -ENOSYS;
}

#define HUSK_HANDLER_full(name) &sys_##name
#define HUSK_HANDLER_partial(name) &sys_##name
#define HUSK_HANDLER_ignored(name) &sys_##name
#define HUSK_HANDLER_missing(name) &missing

struct HandlerTable {
  SyscallHandler of[kSyscallSlots];
};

constexpr HandlerTable make_handlers() {
  HandlerTable table = {};
  for (SyscallHandler& handler : table.of) handler = &missing;
#define SYSCALL(number, name, level, restart, arguments, note) table.of[number] = HUSK_HANDLER_##level(name);
#include "kernel/linux/syscalls.def"
#undef SYSCALL
  return table;
}

struct RestartTable {
  RestartClass of[kSyscallSlots];
};

constexpr RestartTable make_restarts() {
  RestartTable table = {};
#define SYSCALL(number, name, level, restart, arguments, note) table.of[number] = RestartClass::restart;
#include "kernel/linux/syscalls.def"
#undef SYSCALL
  return table;
}

constinit const HandlerTable handlers = make_handlers();
constinit const RestartTable restarts = make_restarts();
constinit HandlerTable traced_handlers = {};  // filled when tracing begins

// Name, NUL, arguments, NUL of each call: one string, because a table of pointers costs a relocation for each.
constexpr char kTexts[] =
#define SYSCALL(number, name, level, restart, arguments, note) #name "\0" arguments "\0"
#include "kernel/linux/syscalls.def"
#undef SYSCALL
    ;
constexpr u16 kNumbers[] = {
#define SYSCALL(number, name, level, restart, arguments, note) number,
#include "kernel/linux/syscalls.def"
#undef SYSCALL
};

}  // namespace

bool describe_syscall(u64 number, SyscallText* text) {
  const char* at = kTexts;
  for (u16 candidate : kNumbers) {
    const char* arguments = at + strlen(at) + 1;
    if (candidate == number) {
      *text = {at, arguments};
      return true;
    }
    at = arguments + strlen(arguments) + 1;
  }
  return false;
}

const SyscallHandler* syscall_table() { return handlers.of; }

RestartClass restart_class(u64 number) { return number < kSyscallSlots ? restarts.of[number] : RestartClass::no; }

void install_syscall_table(bool traced) {
  for (SyscallHandler& handler : traced_handlers.of) handler = traced_call;
  sched::set_syscall_table(traced ? traced_handlers.of : handlers.of);
}

}  // namespace husk::linux
