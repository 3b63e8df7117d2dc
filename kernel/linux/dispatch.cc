// The dispatch table, made from syscalls.def.
#include "kernel/linux/dispatch.h"

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
  const SyscallEntry* entry = syscall_entry(number);
  log(LogLevel::info, "system call %llu (%s) is missing: ENOSYS", static_cast<unsigned long long>(number),
      entry != nullptr ? entry->name : "unknown");
  return -ENOSYS;
}

struct Table {
  SyscallEntry entries[kSyscallSlots];
  SyscallHandler handlers[kSyscallSlots];
};

#define HUSK_HANDLER_full(name) &sys_##name
#define HUSK_HANDLER_partial(name) &sys_##name
#define HUSK_HANDLER_ignored(name) &sys_##name
#define HUSK_HANDLER_missing(name) &missing

constexpr Table make_table() {
  Table table = {};
  for (u32 i = 0; i < kSyscallSlots; ++i) {
    table.entries[i] = {nullptr, &missing, "xxxxxx", RestartClass::no, SupportLevel::missing};
  }
#define SYSCALL(number, name, level, restart, arguments, note) \
  table.entries[number] = {#name, HUSK_HANDLER_##level(name), arguments, RestartClass::restart, SupportLevel::level};
#include "kernel/linux/syscalls.def"
#undef SYSCALL
  for (u32 i = 0; i < kSyscallSlots; ++i) table.handlers[i] = table.entries[i].handler;
  return table;
}

constinit const Table table = make_table();

}  // namespace

const SyscallEntry* syscall_entry(u64 number) {
  return number < kSyscallSlots && table.entries[number].name != nullptr ? &table.entries[number] : nullptr;
}

const SyscallHandler* syscall_table() { return table.handlers; }

RestartClass restart_class(u64 number) {
  return number < kSyscallSlots ? table.entries[number].restart : RestartClass::no;
}

void install_syscall_table(bool traced) { sched::set_syscall_table(traced ? traced_table() : table.handlers); }

}  // namespace husk::linux
