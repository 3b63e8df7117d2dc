// --trace: each system call as one line, in the manner of strace: name(arguments) = result.
//
// Replaces the dispatch table, so that it costs nothing when it is off. Strings and buffers are read from program memory with
// user_copy; what cannot be read is shown as an address. Calls that do not return are shown before they run.
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include <asm/unistd_64.h>

#include "abi/control_records.h"
#include "base/format.h"
#include "kernel/drivers/console.h"
#include "kernel/linux/dispatch.h"
#include "kernel/linux/error_names.h"
#include "kernel/linux/task.h"
#include "kernel/linux/trace_line.h"
#include "kernel/vfs/socket.h"
#include "kernel/mem/user_copy.h"

namespace husk::linux {
namespace {

constexpr FlagName kOpenFlags[] = {{O_CREAT, "O_CREAT"},         {O_EXCL, "O_EXCL"},         {O_TRUNC, "O_TRUNC"},
                                   {O_APPEND, "O_APPEND"},       {O_NONBLOCK, "O_NONBLOCK"}, {O_CLOEXEC, "O_CLOEXEC"},
                                   {O_DIRECTORY, "O_DIRECTORY"}, {O_NOFOLLOW, "O_NOFOLLOW"}, {0x200000, "O_PATH"}};
constexpr FlagName kProtections[] = {{PROT_READ, "PROT_READ"}, {PROT_WRITE, "PROT_WRITE"}, {PROT_EXEC, "PROT_EXEC"}};
constexpr FlagName kMapFlags[] = {{MAP_SHARED, "MAP_SHARED"},       {MAP_PRIVATE, "MAP_PRIVATE"},     {MAP_FIXED, "MAP_FIXED"},
                                  {MAP_ANONYMOUS, "MAP_ANONYMOUS"}, {MAP_NORESERVE, "MAP_NORESERVE"}, {MAP_STACK, "MAP_STACK"},
                                  {MAP_DENYWRITE, "MAP_DENYWRITE"}, {MAP_POPULATE, "MAP_POPULATE"},   {MAP_FIXED_NOREPLACE, "MAP_FIXED_NOREPLACE"}};
constexpr const char* kFutexOperations[] = {"WAIT",    "WAKE",      "FD",         "REQUEUE",     "CMP_REQUEUE", "WAKE_OP",
                                            "LOCK_PI", "UNLOCK_PI", "TRYLOCK_PI", "WAIT_BITSET", "WAKE_BITSET"};

void add_string(Line& line, u64 address) {
  u8 bytes[128];
  size_t got = mem::copy_from_user_partial(bytes, address, sizeof(bytes));
  if (got == 0) return line.add("%#lx", address);
  size_t length = strnlen(reinterpret_cast<const char*>(bytes), got);
  line.add_quoted(bytes, length, length == got);
}

void add_timespec(Line& line, u64 address) {
  i64 value[2];
  if (address == 0) return line.add("NULL");
  if (!mem::copy_from_user(value, address, sizeof(value)).ok()) return line.add("%#lx", address);
  line.add("{%ld.%09ld}", value[0], value[1]);
}

void add_open_flags(Line& line, u64 flags) {
  constexpr const char* kModes[] = {"O_RDONLY", "O_WRONLY", "O_RDWR", "3"};
  line.add("%s", kModes[flags & 3]);
  if ((flags & ~u64{3} & 0xffffffff) != 0) line.add_flags(flags & ~u64{3} & 0xffffffff, kOpenFlags, "|");
}

void add_futex(Line& line, u64 operation) {
  u64 command = operation & 0x7f;
  if (command >= std::size(kFutexOperations)) return line.add("%lu", operation);
  line.add("FUTEX_%s%s", kFutexOperations[command], (operation & 128) != 0 ? "_PRIVATE" : "");
  if ((operation & 256) != 0) line.add("|FUTEX_CLOCK_REALTIME");
}

void add_argument(Line& line, char kind, u64 value, u64 previous, u64 next, i64 result, bool after) {
  if (add_socket_argument(line, kind, value, previous, next, result, after)) return;
  switch (kind) {
    case 'd':
      if (static_cast<int>(value) == AT_FDCWD) return line.add("AT_FDCWD");
      [[fallthrough]];
    case 'f':
    case 'i':
    case 'g':
    case 'c': return line.add("%d", static_cast<int>(value));
    case 'u': return line.add("%lu", value);
    case 'o': return line.add("%#o", static_cast<u32>(value));
    case 's': return add_string(line, value);
    case 'b': return add_buffer(line, value, next);
    case 'B':
      if (after && result >= 0) return add_buffer(line, value, static_cast<u64>(result));
      break;
    case 'O': return add_open_flags(line, value);
    case 'P':
      if (value == 0) return line.add("PROT_NONE");
      return line.add_flags(value, kProtections, "");
    case 'M': return line.add_flags(value, kMapFlags, "");
    case 't': return add_timespec(line, value);
    case 'w': return add_futex(line, value & 0xffffffff);
    default: break;
  }
  if (value == 0) return line.add(kind == 'p' ? "NULL" : "0");
  line.add("%#lx", value);
}

void add_call(Line& line, const SyscallText* entry, u64 number, const u64* arguments, i64 result, bool after) {
  if (entry == nullptr) return line.add("syscall_%lu(", number);
  line.add("%s(", entry->name);
  for (size_t i = 0; i < 6 && entry->arguments[i] != '\0' && entry->arguments[i] != '>'; ++i) {
    if (i != 0) line.add(", ");
    add_argument(line, entry->arguments[i], arguments[i], i > 0 ? arguments[i - 1] : 0, i < 5 ? arguments[i + 1] : 0, result, after);
  }
}

void add_result(Line& line, const SyscallText* entry, i64 result) {
  if (result == -vfs::kInterruptedForGood) result = -EINTR;
  if (result < 0 && result > -4096) return line.add(") = -1 %s", error_name(static_cast<int>(-result)));
  bool address = entry != nullptr && strchr(entry->arguments, '>') != nullptr;
  line.add(address ? ") = %#lx" : ") = %ld", result);
}

void send(const Line& line) { drivers::send_record(abi::RecordType::trace, line.bytes(), true); }

bool shown_before(u64 number) { return number == __NR_exit || number == __NR_exit_group || number == __NR_rt_sigreturn || number == __NR_execve; }

}  // namespace

i64 traced_call(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f) {
  const u64 number = sched::current()->frame()->orig_rax;
  const u64 arguments[6] = {a, b, c, d, e, f};
  SyscallText text;
  const SyscallText* entry = describe_syscall(number, &text) ? &text : nullptr;
  const bool before = shown_before(number);
  Line line;
  if (current_process().task_count > 1) line.add("[%d] ", current_task().tid);
  if (before) {
    add_call(line, entry, number, arguments, 0, false);
    line.add(") = ?");
    send(line);
  }
  i64 result = syscall_table()[number](a, b, c, d, e, f);
  if (before) return result;
  add_call(line, entry, number, arguments, result, true);
  add_result(line, entry, result);
  send(line);
  return result;
}

}  // namespace husk::linux
